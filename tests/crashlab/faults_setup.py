"""Set-up that cannot work, imports, and logging that comes back to us."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from faults_zygote import Zygote
from rows import Row

__all__ = ["setup"]

MAX_IMPORT_MS: Final = 150.0
#: Processor time too is longer on a machine whose cores are shared.
MAX_IMPORT_MS_AMONG_TESTS: Final = 450.0


class _Half:
    """Not a storage."""

    async def open(self) -> None:
        pass


#: What is wrong, what the monitor is given, and what its error must say.
WRONG: Final[dict[str, tuple[dict[str, Any], tuple[str, ...]]]] = {
    "unknown storage": ({"storage": "postgersql://u:secret@h/db"}, ("no storage", "Registered")),
    "storage without a scheme": ({"storage": "data"}, ("no scheme", "expected a URL")),
    "half a storage": ({"storage": _Half()}, ("without write, query, close", "Expected")),
    "unreadable DSN": (
        {"storage": "postgresql://u:secret@h:port/db"},
        ("cannot be read", "expected postgresql://"),
    ),
    "package that is missing": (
        {"storage": "postgresql://u:secret@127.0.0.1:1/db"},
        ("is not installed", "pip install 'llmops-integrations[postgres]'"),
    ),
    "file as the folder": ({"storage": f"parquet:{__file__}"}, ("is a file",)),
    "unknown exporter": ({"exporters": ["consle"]}, ("consle", "Did you mean 'console'")),
    "exporters as text": ({"exporters": "console"}, ("Expected a list", "['console']")),
    "class as collector": ({"collectors": [_Half]}, ("is a class", "Expected an object")),
    "unknown plugin": ({"plugins": ["nosuch"]}, ("no plugin named 'nosuch'",)),
    "unknown setting": ({"overlaod": "drop"}, ("Expected one of", "Did you mean 'overload'")),
    "wrong policy": ({"overload": "wait"}, ("Expected one of drop, block", "Write overload=")),
    "wrong number": ({"queue_bytes": "64 MB"}, ("Expected a whole number from",)),
}


def _without_driver() -> None:
    """Have no driver of PostgreSQL, as where its extra is not installed."""
    sys.modules["asyncpg"] = None  # type: ignore[assignment]


def wrong_child(cell: dict[str, Any], side: Path) -> None:
    """Try each wrong set-up; write what it raised and what it left behind."""
    from llmops_core import LLMOpsError, Monitor

    _without_driver()
    came: dict[str, Any] = {}
    for name, (arguments, said) in WRONG.items():
        before = threading.active_count()
        try:
            Monitor(**{"storage": "memory:", **arguments}).close()
            text = "nothing raised"
        except LLMOpsError as error:
            text = str(error)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        came[name] = {
            "text": text,
            "missing": [s for s in said if s.lower() not in text.lower()],
            "threads": threading.active_count() - before,
            "secret": "secret" in text,
        }
    side.write_text(json.dumps(came))


def off_child(cell: dict[str, Any], side: Path) -> None:
    """Try each wrong set-up without being strict: one line is logged, and the program goes on."""
    from llmops_core import LLMOpsError, Monitor

    _without_driver()
    came: dict[str, Any] = {}
    for name, (arguments, said) in WRONG.items():
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record, lines=lines: lines.append(record.getMessage())  # type: ignore[misc]
        logging.getLogger("llmops").addHandler(handler)
        monitor = Monitor(**{"storage": "memory:", "strict": False, **arguments})
        for run in range(10):
            monitor.recorder.start(run, None, {"kind": "tool", "name": "t"})
            monitor.recorder.end(run, None, {"outcome": "ok"})
        complete = monitor.flush(5).complete
        try:
            refused = f"{monitor.query().num_rows} rows"
        except LLMOpsError as error:
            refused = str(error)
        stats = monitor.stats()
        monitor.close()
        logging.getLogger("llmops").removeHandler(handler)
        came[name] = {
            "lines": lines, "complete": complete, "dropped": stats["events"]["dropped"],
            "missing": [s for s in said for text in (lines[0], refused) if s.lower() not in text.lower()],
            "secret": "secret" in f"{lines}{refused}{stats}",
        }  # fmt: skip
    side.write_text(json.dumps(came))


class _Lines(logging.Handler):
    """A log handler of the application that itself runs something monitored."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.act, self.lines, self.depth, self.deepest = act, 0, 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        try:
            if self.depth < 50:
                self.act()
        finally:
            self.depth -= 1


class _Fails:
    name = "fails"

    async def export(self, batch: Any) -> None:
        raise OSError("no route")

    def collect(self, batch: Any) -> Any:
        logging.getLogger("llmops").warning("from inside a collector")
        raise OSError("no")

    async def close(self) -> None:
        pass


def logging_child(cell: dict[str, Any], side: Path) -> None:
    """Fail in many places while the log comes back; asyncio in debug, warnings are errors."""
    warnings.simplefilter("error")
    from faults_hosts import FRAMEWORKS

    from llmops_core import Monitor

    monitor = Monitor("memory:", exporters=[_Fails()], collectors=["capacity", _Fails()])
    program, config = FRAMEWORKS["langgraph"](monitor)
    lines = _Lines(lambda: program.invoke(1, config))
    ours = logging.getLogger("llmops")
    ours.addHandler(lines)
    ours.propagate = False

    async def main() -> list[Any]:
        calls = (program.ainvoke(n, config) for n in range(50))
        return await asyncio.gather(*calls)

    answers = asyncio.run(main(), debug=True)
    for _ in range(50):
        monitor.recorder.report("somewhere", ValueError("x"))
        monitor.flush(20)
    report = monitor.close(10)
    stats = monitor.stats()
    reasons = len(stats["failures"])
    came = {
        "answers": sum(a["n"] == 2 * n for n, a in enumerate(answers)),
        "lines": lines.lines, "reasons": reasons, "deepest": lines.deepest,
        "failed": sum(stats["failures"].values()), "complete": report.complete,
        "own": 5,  # the collector says a line itself, each time it is called
    }  # fmt: skip
    side.write_text(json.dumps(came))


def setup(quick: bool) -> Iterator[Row]:
    """Yield the rows of set-up, import and logging."""
    zygote = Zygote()
    try:
        came = zygote.run({"run": "faults_setup:wrong_child"})["record"]
        for name in WRONG:
            told = came.get(name, {"missing": ["all"], "text": "", "threads": 0, "secret": False})
            good = not told["missing"] and not told["threads"] and not told["secret"]
            yield Row("faults", f"set-up: {name}", "core", good, told["text"][:100])
        yield _off_row(zygote)
        yield _logging_row(zygote)
    finally:
        zygote.close()
    yield _import_row(MAX_IMPORT_MS_AMONG_TESTS if quick else MAX_IMPORT_MS)
    yield _nowhere_row()


def _off_row(zygote: Zygote) -> Row:
    came = zygote.run({"run": "faults_setup:off_child"})["record"]
    bad = [
        name
        for name in WRONG
        if name not in came
        or len(came[name]["lines"]) != 1
        or not came[name]["complete"]
        or came[name]["dropped"] != {"off": 20}
        or came[name]["missing"]
        or came[name]["secret"]
    ]
    detail = f"{len(came)} wrong set-ups, each one line in the log; wrong: {bad or 'none'}"
    return Row("faults", "set-up: strict=False", "core", not bad, detail)


def _logging_row(zygote: Zygote) -> Row:
    came = zygote.run({"run": "faults_setup:logging_child"})["record"]
    passed = bool(came) and (
        came["answers"] == 50
        and came["failed"] > 50
        and came["lines"] <= came["reasons"] + came["own"]
        and came["deepest"] <= 2
        and came["complete"]
    )
    detail = (
        f"{came['lines']} lines ({came['own']} the plugin's) for {came['failed']} failures of "
        f"{came['reasons']} sorts"
        if came
        else "no record"
    )
    return Row("faults", "log handler that is monitored itself", "langgraph async", passed, detail)


_IMPORT: Final = """
import os, sys, threading, time
before = len(os.listdir("/proc/self/fd"))
began = time.process_time(); import {modules}; ms = (time.process_time() - began) * 1000
print(ms, threading.active_count() - 1, len(os.listdir("/proc/self/fd")) - before)
"""
#: What it imports of Python's own and of msgspec, which takes most of the time: how fast this machine is.
_STANDS_ON: Final = "asyncio, importlib.metadata, inspect, logging, msgspec, uuid"


def _import_row(limit_ms: float) -> Row:
    ms, threads, files = _imported("llmops_core")
    below, _, _ = _imported(_STANDS_ON)
    # On a machine that is slow today milliseconds are no measure.
    passed = ms <= max(limit_ms, 2 * below) and threads == 0 and files <= 0
    return Row(
        "faults", "import", "core", passed,
        f"{ms:.0f} ms of CPU (least of 5), {below:.0f} of it for what it stands on, {threads:.0f} threads, "
        f"{files:.0f} open files",
    )  # fmt: skip


def _imported(modules: str) -> list[float]:
    """Return the least of five: milliseconds of CPU, threads, and files that are open."""
    # With compiled files, as users have them: the first one may write them.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    program = [sys.executable, "-c", _IMPORT.format(modules=modules)]
    return min(
        [
            float(text)
            for text in subprocess.run(
                program, capture_output=True, text=True, check=True, env=environment
            ).stdout.split()
        ]
        for _ in range(5)
    )


_NOWHERE: Final = """
from llmops_core.storage.memory import MemoryStorage
from llmops_core import Monitor
class Durable(MemoryStorage):
    volatile = False
monitor = Monitor(Durable())
monitor.recorder.start(1, None, {"kind": "tool", "name": "t"})
monitor.recorder.end(1, None, {})
print(monitor.flush(20).complete, monitor.query().num_rows)
"""


def _nowhere_row() -> Row:
    with tempfile.NamedTemporaryFile() as file:
        # A folder below a file cannot be made by anybody, root included.
        environment = {**os.environ, "LLMOPS_STATE_DIR": f"{file.name}/state"}
        done = subprocess.run(
            [sys.executable, "-c", _NOWHERE], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    lines = done.stderr.splitlines()
    passed = done.stdout == "True 1\n" and 1 <= len(lines) <= 2 and "journal" in done.stderr
    detail = f"{len(lines)} log lines, the span is stored" if passed else done.stderr[-300:]
    return Row("faults", "no folder is writable", "core", passed, detail)
