"""A program that forks while another thread holds a lock of ours; ``python forks_app.py URL FORKS``.

The locks are found by walking everything that a live monitor and our modules hold, so that a lock that
is added joins by itself. Each child records, flushes and exits like any program; one that is not gone
after five seconds prints its stacks and counts as a deadlock. One that finds a held lock of the parent's
in our modules has failed as well, whether it takes it or not. The last line on stdout is JSON.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import faulthandler
import gc
import json
import os
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Registered before ours, so it runs after it: tearing an interpreter down may take its time.
atexit.register(faulthandler.cancel_dump_traceback_later)

from llmops_core import Monitor, SpanBatch, default_monitor, hookimpl, monitor_llm  # noqa: E402
from llmops_core.storage.memory import MemoryStorage  # noqa: E402
from llmops_core.storage.parquet import ParquetStorage  # noqa: E402

LOCKS = (type(threading.Lock()), type(threading.RLock()))
CONTAINERS = (dict, list, tuple, set, frozenset, collections.deque, types.MethodType)
DEADLOCK_SECONDS = 5
SPANS = 3
#: In the first of so many rounds through all locks the child does everything.
FULL_ROUNDS = 10


class Foreign:
    """A collector, an exporter and a plugin of somebody else's, so that their threads are there."""

    name = "foreign"

    def collect(self, batch: SpanBatch) -> dict[str, Any]:
        return {}

    async def export(self, batch: SpanBatch) -> None:
        """Take it."""

    async def close(self) -> None:
        """Nothing to close."""

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        """Hear of it."""


def _ours(thing: object) -> bool:
    module = type(thing).__module__
    return module.partition(".")[0] in (
        "llmops_core",
        "llmops_integrations",
        "threading",
        "weakref",
    )


def _named(thing: object) -> Iterator[tuple[str, object]]:
    """Yield what a thing refers to, with the name of the attribute where it has one."""
    names = {id(v): n for n, v in getattr(thing, "__dict__", {}).items()}
    for slot in getattr(type(thing), "__slots__", ()):
        with contextlib.suppress(AttributeError, TypeError):
            names[id(getattr(thing, slot))] = slot
    if isinstance(thing, dict):
        names |= {id(v): str(k) for k, v in thing.items() if isinstance(k, str)}
    for other in gc.get_referents(thing):
        yield names.get(id(other), ""), other


def our_modules() -> dict[str, object]:
    return {n: m for n, m in sys.modules.items() if n.startswith("llmops_")}


def locks_of(roots: dict[str, object], *, beyond: tuple[type, ...] = ()) -> dict[str, Any]:
    """Return every lock that is reached from *roots* through objects of ours, by a name for it.

    What is reached through objects of the sorts *beyond* is left out.
    """
    found: dict[int, tuple[str, Any]] = {}
    seen: set[int] = set()
    waiting = collections.deque(roots.items())
    while waiting:
        name, thing = waiting.popleft()
        if isinstance(thing, LOCKS):
            found.setdefault(id(thing), (name, thing))
            continue
        if id(thing) in seen or isinstance(thing, (threading.Thread, *beyond)):
            continue
        seen.add(id(thing))
        is_module = isinstance(thing, types.ModuleType) and name in roots
        if is_module:
            thing = vars(thing)
        if is_module or isinstance(thing, CONTAINERS) or _ours(thing):
            kind = type(thing).__name__ if _ours(thing) else ""
            for attribute, other in _named(thing):
                # A condition's waiters hold a lock each, and wait for it: nobody else takes it.
                if attribute != "_waiters" and not isinstance(
                    other, (types.ModuleType, type, types.FunctionType)
                ):
                    whole = f"{kind or name}.{attribute}" if attribute else kind or name
                    waiting.append((whole, other))
    result: dict[str, Any] = {}
    for name, lock in found.values():
        unique, number = name, 2
        while unique in result:
            unique, number = f"{name}#{number}", number + 1
        result[unique] = lock
    return result


@contextlib.contextmanager
def held(lock: Any) -> Iterator[bool]:
    """Have another thread hold a lock; yield whether somebody does (a wake-up may hold its own)."""
    holding, go = threading.Event(), threading.Event()

    def hold() -> None:
        if lock.acquire(timeout=1):
            try:
                holding.set()
                go.wait(10)
            finally:
                lock.release()
        else:
            holding.set()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    holding.wait(5)
    try:
        free = lock.acquire(blocking=False)
        if free:  # the one that was to hold it failed: nobody holds it for ever instead
            lock.release()
        yield not free
    finally:
        go.set()
        thread.join(5)


def record(monitor: Monitor, count: int, first: int) -> None:
    for number in range(count):
        run = first + number
        monitor.recorder.start(run, None, {"kind": "tool", "name": "child"})
        monitor.recorder.end(run, None, {"outcome": "ok"})


def inherited(held: list[Any]) -> list[str]:
    """Return the locks of our modules that nobody renewed: of *held*, those that a child reaches.

    A monitor's own are left out: it takes new ones when it is first used.
    """
    theirs = {id(lock) for lock in held}
    ours = locks_of(our_modules(), beyond=(Monitor,))
    return [name for name, lock in ours.items() if id(lock) in theirs]


def child(monitor: Monitor, number: int, held: list[Any], *, full: bool) -> None:
    faulthandler.dump_traceback_later(DEADLOCK_SECONDS, exit=True)
    if full and (left := inherited(held)):
        sys.exit(f"not renewed: {left}")
    record(monitor, SPANS, number << 32)
    if full:  # everything that a program may do
        default_monitor()
        monitor_llm(lambda: None)()
        monitor.stats()
        monitor.flush(2)
        monitor.query(limit=1)
    monitor.recorder.report("child", ValueError(str(number)))
    sys.exit(0)


def end_of(pid: int) -> int:
    """Return a child's exit code; 99 if it had to be killed."""
    deadline = time.monotonic() + 12 * DEADLOCK_SECONDS
    while time.monotonic() < deadline:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return 99


def monitors_of(url: str, folder: Path) -> dict[str, Monitor]:
    path = url.partition(":")[2]
    foreign = Foreign()
    os.environ["LLMOPS_STORAGE_URL"] = f"parquet:{folder / 'default'}"
    return {
        "monitor": Monitor(
            ParquetStorage(path),
            exporters=[f"jsonl:{folder / 'out'}", foreign],
            collectors=["capacity", foreign],
            plugins=[foreign],
            overload="block",
        ),
        "memory": Monitor(MemoryStorage()),
        "default": default_monitor(),
    }


def main(url: str, forks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monitors = monitors_of(url, Path(folder))
        monitor = monitors["monitor"]
        parent = os.getpid()
        record(monitor, 5, 1)
        monitor.flush()
        monitor.query(limit=1)
        with contextlib.suppress(ImportError):
            from llmops_integrations.langchain import LLMOpsCallbackHandler

            monitors["handler"] = LLMOpsCallbackHandler(monitor=monitor)  # type: ignore[assignment]
        with contextlib.suppress(ImportError):
            import llmops_integrations.instrumenting
            import llmops_integrations.langgraph  # noqa: F401
        locks = locks_of({**monitors, **our_modules()})
        held_at_fork: collections.Counter[str] = collections.Counter()
        met_full: collections.Counter[str] = collections.Counter()
        codes: collections.Counter[int] = collections.Counter()
        stuck: list[str] = []
        names = list(locks)
        # One lock at a time, in turn; a short run holds several, so that each has its turn.
        groups = [names[at :: min(forks, len(names))] for at in range(min(forks, len(names)))]
        for number in range(1, forks + 1):
            # By the round, not by the fork: each lock meets the child that does everything.
            turn, place = divmod(number - 1, len(groups))
            group, full = groups[place], turn % FULL_ROUNDS == 0
            with contextlib.ExitStack() as holding:
                for name in group:
                    is_held = holding.enter_context(held(locks[name]))
                    held_at_fork[name] += is_held
                    met_full[name] += is_held and full
                pid = os.fork()
                if pid == 0:
                    child(monitor, number, [locks[name] for name in group], full=full)
            code = end_of(pid)
            codes[code] += 1
            if code:
                stuck.append(f"{group}: {code}")
        assert os.getpid() == parent
        free = [name for name in names if not held_at_fork[name]]
        least = min(met_full[name] for name in names)
        result = {"locks": names, "codes": codes, "stuck": stuck, "never_held": free, "full": least}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
