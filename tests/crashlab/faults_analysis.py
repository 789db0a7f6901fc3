"""Plugins that run in whoever analyses: an extractor, an equivalence, an analyzer, with every fault.

There a fault may not be survived in silence: a result that lacks what a plugin would have said is a
wrong result. So the command ends with an error that names the plugin, or says what it left out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from faults_acts import CHANGES, FAULTS, Fault, Hits
from faults_parts import Bad
from faults_zygote import Zygote
from rows import Row

__all__ = ["ANALYSES", "analyses"]

DESK: Final = Path(__file__).parents[1] / "core" / "analysis"


class _Extractor:
    def __init__(self, bad: Callable[[Any], Any]) -> None:
        self._bad = bad

    def extract(self, text: str) -> Any:
        lie, at = self._bad(text), text.find("teal")
        return [("colour", at, at + 4)] * (at >= 0) if lie is None else lie


class _Equivalence:
    def __init__(self, bad: Callable[[Any], Any]) -> None:
        self._bad = bad

    def same(self, kind: str, first: str, second: str) -> Any:
        lie = self._bad(first)
        return (first, second) == ("Bob Miller", "Robert Miller") if lie is None else lie


class _Analyzer:
    def __init__(self, bad: Callable[[Any], Any]) -> None:
        self._bad = bad

    def analyze(self, spans: Any) -> Any:
        lie = self._bad(spans)
        return spans.select(["name"]) if lie is None else lie


#: Kind of part → its class, and the command that uses it.
ANALYSES: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "entity_extractor": (_Extractor, ("analyze", "drift", "--json", "--extractor", "bad")),
    "equivalence": (_Equivalence, ("analyze", "drift", "--json", "--equivalence", "bad")),
    "analyzer": (_Analyzer, ("analyze", "bad", "--json")),
}


def analysis_child(cell: dict[str, Any], side: Path) -> None:
    """Store a trace, and run the command line with the plugin in this process."""
    import llmops_core.plugins
    from llmops_core import hookimpl
    from llmops_core.cli import main
    from llmops_core.storage.parquet import ParquetStorage
    from llmops_core.testing import make_batch

    sys.path.insert(0, str(DESK))
    from desk import Trace

    trace = Trace(1)
    trace.agent("router", "the teal one for Bob Miller", "x")
    trace.handoff("router", "billing")
    trace.agent("billing", "the one for Robert Miller", "x")
    storage = ParquetStorage(side.parent / "data")
    asyncio.run(storage.open())
    asyncio.run(storage.write(make_batch(trace.spans, writer_id="w", first_seq=1)))
    made, command = ANALYSES[cell["kind"]]
    hits = Hits()
    bad: Callable[[Any], Any] = lambda given: None  # noqa: E731
    if cell["fault"]:
        bad = _let_go(Bad(FAULTS[cell["fault"]], hits))

    class Plugin:
        name = "bad"

        @hookimpl
        def llmops_register(self, registry: Any) -> None:
            getattr(registry, cell["kind"])("bad", lambda argument: made(bad))

    host = llmops_core.plugins.PluginHost([Plugin()])
    llmops_core.plugins.PluginHost = lambda: host  # type: ignore[assignment,misc]
    sys.argv = ["llmops", *command, "--storage", f"parquet:{storage.folder}"]
    try:
        main()
    finally:
        side.write_text(json.dumps({"hits": hits.count}))


def _let_go(bad: Bad) -> Callable[[Any], Any]:
    """Return the fault; what hangs is let go a moment after it began."""

    def call(given: Any) -> Any:
        if bad.hangs and not bad.hits.count:
            threading.Timer(0.2, bad.hits.released.set).start()
        return bad(given)

    return call


def analyses(quick: bool) -> Iterator[Row]:
    """Yield a row for each kind of plugin and each fault; quickly, every fifth pair.

    None of the three is given spans that it could change: texts, and a table of Arrow's.
    """
    zygote = Zygote()
    try:
        twins = {kind: _run(zygote, kind, None) for kind in ANALYSES}
        faults = [fault for fault in FAULTS.values() if fault.name != CHANGES]
        for (row, kind), (at, fault) in itertools.product(enumerate(ANALYSES), enumerate(faults)):
            if not quick or (row + at) % 5 == 0:
                yield _row(kind, fault, _run(zygote, kind, fault), twins[kind])
    finally:
        zygote.close()


def _run(zygote: Zygote, kind: str, fault: Fault | None) -> dict[str, Any]:
    name = fault.name if fault else None
    return zygote.run({"run": "faults_analysis:analysis_child", "kind": kind, "fault": name})


def _row(kind: str, fault: Fault, came: dict[str, Any], twin: dict[str, Any]) -> Row:
    told = _told(kind, came)
    same = (came["exit"], came["stdout"]) == (0, twin["stdout"]) and twin["exit"] == 0
    detail = {"nothing": "as without it", "error": "an error names it"}.get(told, told)
    if fault.sort in ("raises", "lies"):
        passed = told == ("left out" if kind == "equivalence" else "error")
    elif fault.name == "closes stdout":
        passed, detail = not came["late"], "LIMIT: stdout is the process's own"
    else:
        passed = same
        detail = f"{detail}; LIMIT: the analysis waits" if fault.sort == "hangs" else detail
    if fault.name == "raises KeyboardInterrupt":  # it may be the user's own
        passed, detail = came["exit"] != 0 and not came["stdout"], "LIMIT: it is an interrupt"
    if not passed or not came["record"].get("hits"):
        detail = f"exit {came['exit']}, {came['stdout'][:300]!r}, {came['stderr'][-300:]!r}"
        passed = False
    return Row("faults", f"{kind} {fault.name}", "analysis", passed, detail)


def _told(kind: str, came: dict[str, Any]) -> str:
    """Return what the command says of a plugin that failed."""
    if "Traceback" in came["stderr"]:
        return "a traceback"
    named = {"entity_extractor": "_Extractor", "analyzer": "'bad'"}.get(kind, "_Equivalence")
    if came["exit"] == 2 and not came["stdout"] and f"{named} failed" in came["stderr"]:
        return "error"
    if came["exit"] == 0 and any(n.startswith("failed:") for n in _asked(came["stdout"])):
        return "left out"
    return "nothing"


def _asked(stdout: str) -> dict[str, int]:
    try:
        found = json.loads(stdout)
    except ValueError:
        return {}
    return dict(found.get("equivalences", {})) if isinstance(found, dict) else {}
