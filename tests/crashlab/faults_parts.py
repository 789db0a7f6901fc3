"""Where a plugin's code runs: each part is one registration, and the matrix has a row for it.

A part is built with a :class:`Bad`, which is called wherever the part's own code would run. Beside
it stand witnesses, which must get everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from faults_acts import CHANGES, FAULTS, Fault, Hits

from llmops_core import SpanBatch, hookimpl
from llmops_core.storage.memory import MemoryStorage

__all__ = [
    "NO_PART", "PARTS", "Bad", "LabStorage", "Part", "Witness", "is_seen", "must_count", "pairs",
]  # fmt: skip


class Bad:
    """Does the fault, once it is called, as long as it lasts."""

    def __init__(self, fault: Fault, hits: Hits) -> None:
        self._fault, self.hits = fault, hits
        self.lies, self.hangs = fault.sort == "lies", fault.sort == "hangs"

    def __call__(self, given: Any = None) -> Any:
        """Count and act, unless it is over."""
        if self.hits.over():
            return None
        self.hits.count += 1
        return self._fault.act(self.hits, given)


class Witness:
    """A collector, an exporter and a listener that work, and remember what they got."""

    name = "witness"

    def __init__(self) -> None:
        self.exported: list[str] = []
        self.told: list[str] = []
        self.handed: list[str] = []
        self.names: set[str] = set()

    def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
        return {"witnessed": ["yes"] * len(batch)}

    async def export(self, batch: SpanBatch) -> None:
        self.exported += [span.span_id for span in batch.rows]
        self.names.update(span.name for span in batch.rows)

    async def close(self) -> None:
        pass

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self.told += [span.span_id for span in batch.rows]
        self.names.update(span.name for span in batch.rows)

    @hookimpl
    def llmops_handoff(self, handoff: Any) -> None:
        self.handed.append(handoff.span_id)
        self.names.add(handoff.name)


class LabStorage(MemoryStorage):
    """The memory storage with a journal; its methods go wrong where a cell says so."""

    volatile = False

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.journal_root = root
        self.bad: dict[str, Bad] = {}

    async def open(self) -> None:
        await self._do("open", None)
        await super().open()

    async def write(self, batch: SpanBatch) -> None:
        kept = batch.copied()  # a storage's harm to its own spans is its own; others see none of it
        await self._do("write", batch)
        await super().write(kept)

    async def query(self, query: Any) -> Any:
        lie = await self._do("query", query)
        return await super().query(query) if lie is None else lie

    async def close(self) -> None:
        await self._do("close", None)
        await super().close()

    async def _do(self, method: str, given: Any) -> Any:
        bad = self.bad.get(method)
        lie = None if bad is None else bad(given)
        if lie is not None and method != "query":
            await lie  # as it is where a method is no coroutine
        return lie


@dataclass(frozen=True)
class Part:
    """A place where a plugin's code runs."""

    name: str
    #: Return arguments of the monitor, to be added to those with the witnesses.
    build: Callable[[Bad, LabStorage], dict[str, list[Any]]]
    #: What its failures are counted as: its name and the call. A query's go to whoever asks.
    counted: str = ""
    #: The same where it hangs, if that is another.
    counted_hung: str = ""
    #: Its name in ``stats()["cut_off"]``; empty where there is nothing to cut off.
    label: str = ""
    #: It is given spans, which it may change by force.
    has_spans: bool = False
    #: Called once, at set-up: it may fail the set-up, and then the program runs unmonitored.
    at_set_up: bool = False
    #: Called on the user's thread: there an interrupt or a hang is the user's to see.
    on_user_thread: bool = False
    #: It is told of nothing that it could return or change.
    ignores: tuple[str, ...] = ()
    #: Called again and again, so that five failures can be seen.
    repeats: bool = True
    #: What the program does not do by itself, so that the cell does it: ``handoff`` or ``model``.
    needs: str = ""


PARTS: Final[dict[str, Part]] = {}
#: The healthy cell has nothing but the witnesses.
NO_PART: Final = Part("nobody", lambda bad, storage: {})


def part(name: str, **about: Any) -> Callable[[Any], Any]:
    """Register a function that builds a part."""

    def register(build: Callable[[Bad, LabStorage], dict[str, list[Any]]]) -> Any:
        PARTS[name] = Part(name, build, **about)
        return build

    return register


def _hook(name: str, argument: str) -> Callable[[Bad, LabStorage], dict[str, list[Any]]]:
    def build(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
        scope: dict[str, Any] = {"bad": bad, "hookimpl": hookimpl}
        # pluggy reads the names of the arguments, so each hook needs a function of its own.
        exec(f"@hookimpl\ndef {name}(self, {argument}):\n    return bad({argument})", scope)
        return {"plugins": [type("Listener", (), {"name": "bad", name: scope[name]})()]}

    return build


_LIES = ("lies",)
for _name, _argument, _about in (
    ("llmops_spans_stored", "batch", {"has_spans": True}),
    ("llmops_handoff", "handoff", {"has_spans": True, "needs": "handoff"}),
    ("llmops_plugin_failed", "error", {}),
    ("llmops_monitor_started", "monitor", {"repeats": False}),
    ("llmops_monitor_stopping", "monitor", {"repeats": False}),
):
    _about |= {"label": "bad", "counted": f"bad.{_name}", "ignores": _LIES}
    part(f"hook {_name[7:]}", **_about)(_hook(_name, _argument))


@part("hook register", at_set_up=True, on_user_thread=True, ignores=_LIES, repeats=False)
def _register(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
    class Registers:
        name = "bad"

        @hookimpl
        def llmops_register(self, registry: Any) -> Any:
            return bad(registry)

    return {"plugins": [Registers()]}


@part("factory", at_set_up=True, on_user_thread=True, repeats=False)
def _factory(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
    class Makes:
        name = "bad"

        @hookimpl
        def llmops_register(self, registry: Any) -> None:
            registry.collector("bad", lambda text: bad(text) or Witness())

    return {"plugins": [Makes()], "collectors": ["bad"]}


@part("collector", label="bad", counted="bad.collect", has_spans=True)
def _collector(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
    class Collects:
        name = "bad"

        def collect(self, batch: SpanBatch) -> Any:
            lie = bad(batch)
            return {} if lie is None else lie

    return {"collectors": [Collects()]}


@part("tokenizer", counted="tokenizer.collect", repeats=False, needs="model")
def _tokenizer(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
    class Counts:
        def knows(self, model: str) -> bool:
            return True

        def count(self, text: str, model: str, seconds: float) -> Any:
            lie = bad(text)
            return 1 if lie is None else str(lie)

    class Provides:
        name = "provides"

        @hookimpl
        def llmops_register(self, registry: Any) -> None:
            registry.tokenizer("bad", lambda argument: Counts())

    return {"plugins": [Provides()], "collectors": ["tokenizer:bad"]}


class _Exporter:
    name = "bad"

    def __init__(self, export: Bad | None = None, close: Bad | None = None) -> None:
        self._export, self._close = export, close

    def export(self, batch: SpanBatch) -> Any:
        return self._answer(self._export, batch)

    def close(self) -> Any:
        return self._answer(self._close, None)

    def _answer(self, bad: Bad | None, given: Any) -> Any:
        if bad is not None and bad.lies:
            return bad(given)

        async def work() -> None:
            if bad is not None:
                bad(given)

        return work()


@part("exporter", label="bad", counted="bad.export", has_spans=True)
def _exporter(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
    return {"exporters": [_Exporter(export=bad)]}


@part("exporter close", counted="bad.close", repeats=False)
def _exporter_close(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
    return {"exporters": [_Exporter(close=bad)]}


def _storage(method: str) -> Callable[[Bad, LabStorage], dict[str, list[Any]]]:
    def build(bad: Bad, storage: LabStorage) -> dict[str, list[Any]]:
        storage.bad = {method: bad}
        return {}

    return build


part("storage open", at_set_up=True, repeats=False)(_storage("open"))
part(
    "storage write", label="storage", counted="storage.write", counted_hung="storage.slow",
    has_spans=True,
)(_storage("write"))  # fmt: skip
part("storage query", counted_hung="storage.slow", repeats=False)(_storage("query"))
part("storage close", counted="storage.close", repeats=False)(_storage("close"))


def pairs() -> Iterator[tuple[Part, Fault]]:
    """Yield each part with each fault that it can have: who is given no spans changes none."""
    for part in PARTS.values():
        for fault in FAULTS.values():
            if part.has_spans or fault.name != CHANGES:
                yield part, fault


def must_count(part: Part, fault: Fault) -> str:
    """Return the failure that must be counted; empty where the fault is none, or the caller's to see."""
    if fault.sort == "works" or fault.sort in part.ignores:
        return ""
    where = (fault.sort == "hangs" and part.counted_hung) or part.counted
    return f"{where}: {fault.error}" if where else ""


def is_seen(part: Part, fault: Fault) -> bool:
    """Whether a fault must show: as a cut-off, or for the storage as its state."""
    if not part.label or fault.sort == "works" or fault.sort in part.ignores:
        return False
    return part.repeats or (part.name == "hook monitor_started" and fault.sort == "hangs")
