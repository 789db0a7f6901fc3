"""A program of three events that ends in one of many ways; ``exits_app.py HOW TWIN|MONITORED URL SETTLE``.

With ``TWIN`` nothing of ours is imported. Otherwise the three runs are recorded, and an outside oracle
reads what is appended to the file ORACLE: ``i SPAN`` when a run has ended on the program's thread, ``j
SPAN ...`` when the journal's write of them has returned, ``x NS CPU_NS`` right before it leaves. ``f`` when a
storage that is dead is asked to write. With ``SETTLE`` it leaves when all were said to be journaled, else
at once. ``HIDDEN`` names packages that are not to be found, ``IMPORTED`` those that the program uses.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

HOW, MODE, URL, SETTLE = sys.argv[1:5]
MONITORED = MODE != "TWIN"
ORACLE = os.open(os.environ["ORACLE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
journaled: set[str] = set()


def say(line: str) -> None:
    os.write(ORACLE, (line + "\n").encode())


def mine(number: int, frame: object) -> None:
    print("mine", flush=True)
    sys.exit(9)


def late() -> None:
    print("late", flush=True)
    record("late")


for name in filter(None, os.environ.get("HIDDEN", "").split(",")):
    sys.modules[name] = None  # type: ignore[assignment]
for name in filter(None, os.environ.get("IMPORTED", "").split(",")):
    importlib.import_module(name)

# A shell starts what runs in the background with this one ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
SIGNAL = signal.SIGINT if HOW.startswith("sigint") else signal.SIGTERM
if HOW.endswith("_handler_before"):
    signal.signal(SIGNAL, mine)
if HOW == "atexit_before":
    import atexit

    atexit.register(late)

monitor = None
if MONITORED:
    from llmops_core import Monitor
    from llmops_core.intake.tracer import span_id_of
    from llmops_core.journal.writer import Journal
    from llmops_core.storage.parquet import ParquetStorage

    append = Journal.append_records

    def told(self, spans, first_seq, last_seq):  # type: ignore[no-untyped-def]
        size = append(self, spans, first_seq, last_seq)
        # The span id is the first column of a record.
        ids = [span[0] if isinstance(span, tuple) else span.span_id for span in spans]
        say("j " + " ".join(ids))
        journaled.update(ids)
        return size

    Journal.append_records = told  # type: ignore[method-assign]

    class Dead(ParquetStorage):
        """A storage that is down, in one of three ways."""

        async def write(self, batch):  # type: ignore[no-untyped-def]
            if MODE != "MONITORED":
                say("f")
            if MODE == "refuses":
                raise ConnectionError("down")
            if MODE == "blocks":
                threading.Event().wait(60)
            if MODE == "waits":
                import asyncio

                await asyncio.sleep(60)
            await super().write(batch)

        async def close(self) -> None:
            if MODE == "blocks":
                threading.Event().wait(60)
            await super().close()

    storage = URL if MODE == "MONITORED" else Dead(URL.partition(":")[2])
    monitor = Monitor(storage)

_run = [os.getpid() << 64]


def record(name: str) -> None:
    """One run, if this program is monitored."""
    if monitor is None:
        return
    _run[0] += 1
    monitor.recorder.start(_run[0], None, {"kind": "tool", "name": name})
    monitor.recorder.end(_run[0], None, {"outcome": "ok"})
    say(f"i {span_id_of(_run[0])}")


def three(settle: bool = SETTLE == "SETTLE") -> None:
    """Record three runs, and wait until they are journaled if that is asked for."""
    before = len(journaled)
    _run[0] = max(_run[0], os.getpid() << 64)
    for _ in range(3):
        record("event")
    deadline = time.monotonic() + 20
    while settle and monitor is not None and len(journaled) < before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    say(f"x {time.monotonic_ns()} {time.process_time_ns()}")


def kill_by(number: int) -> None:
    three()
    os.kill(os.getpid(), number)
    time.sleep(10)


def by_signal() -> None:
    if HOW.endswith("_handler_after"):
        signal.signal(SIGNAL, mine)
    kill_by(SIGNAL)


def by_thread() -> None:
    def work() -> None:
        time.sleep(0.2)
        three()

    threading.Thread(target=work).start()


def with_daemon() -> None:
    def work() -> None:
        while True:
            time.sleep(0.01)

    threading.Thread(target=work, daemon=True).start()
    three()


def in_atexit() -> None:
    import atexit

    def leave() -> None:
        three()
        sys.exit(5)

    atexit.register(leave)


def in_loop() -> None:
    import asyncio

    async def work() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(60))
        three()
        sys.exit(4)

    asyncio.run(work())


def cancelled() -> None:
    import asyncio

    async def work() -> None:
        three()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    asyncio.run(work())


def loop_handler() -> None:
    import asyncio

    async def work() -> None:
        leave = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
        three()
        os.kill(os.getpid(), signal.SIGTERM)
        await leave.wait()
        print("mine", flush=True)

    asyncio.run(work())


def execv() -> None:
    three()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-c", "print('another'); raise SystemExit(6)"])


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        three()
        sys.exit(7)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def in_child() -> None:
    global monitor
    if MONITORED and monitor is None:
        monitor = Monitor(URL)
    three()


def by_multiprocessing() -> None:
    import multiprocessing

    child = multiprocessing.get_context(HOW.partition("_")[2]).Process(target=in_child)
    child.start()
    child.join()
    sys.exit(child.exitcode)


def by_pool() -> None:
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(in_child).result()


def fail() -> None:
    three()
    raise ValueError("mine")


def interrupt() -> None:
    three()
    raise KeyboardInterrupt


WAYS = {
    "return": three,
    "sys_exit_0": lambda: (three(), sys.exit(0)),
    "sys_exit_3": lambda: (three(), sys.exit(3)),
    "exception": fail,
    "keyboard_interrupt": interrupt,
    "sigint": by_signal,
    "sigint_handler_before": by_signal,
    "sigint_handler_after": by_signal,
    "sigterm": by_signal,
    "sigterm_handler_before": by_signal,
    "sigterm_handler_after": by_signal,
    "sigterm_asyncio_handler": loop_handler,
    "sighup": lambda: kill_by(signal.SIGHUP),
    "sigkill": lambda: kill_by(signal.SIGKILL),
    "os_exit": lambda: (three(), os._exit(5)),
    "os_execv": execv,
    "os_abort": lambda: (three(), os.abort()),
    "thread_exit": by_thread,
    "daemon_thread": with_daemon,
    "atexit": in_atexit,
    "atexit_before": three,
    "exit_in_loop": in_loop,
    "asyncio_cancelled": cancelled,
    "fork": fork,
    "process_fork": by_multiprocessing,
    "process_spawn": by_multiprocessing,
    "process_forkserver": by_multiprocessing,
    "process_pool": by_pool,
}

if __name__ == "__main__":
    print("begin", flush=True)
    WAYS[HOW]()
    print("end", flush=True)
