"""Every way for a program to end, on every version of Python, beside an unmonitored twin.

``python tests/crashlab/run.py --only exits``. The oracle is this process: it hears through a pipe what
was recorded and what was journaled, and afterwards looks at what is stored.
"""

from __future__ import annotations

import collections
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from rows import Row

from llmops_core import Monitor, open_storage

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
#: Ends that give us a turn: the three spans are stored right away.
STORED: Final = (
    "return", "sys_exit_0", "sys_exit_3", "exception", "keyboard_interrupt", "sigint",
    "sigint_handler_before", "sigint_handler_after", "sigterm_handler_before",
    "sigterm_handler_after", "sigterm_asyncio_handler", "thread_exit", "daemon_thread", "atexit",
    "atexit_before", "exit_in_loop", "asyncio_cancelled", "process_fork", "process_spawn",
    "process_forkserver", "process_pool",
)  # fmt: skip
#: Ends that give nobody a turn: what the journal holds is stored by the next start.
ABRUPT: Final = ("sigterm", "sighup", "sigkill", "os_exit", "os_execv", "os_abort")
#: Stored right away, but for the version that starts no thread any more once it exits: by the next start.
EITHER: Final = {"fork": "3.12"}
WAYS: Final = (*STORED, *EITHER, *ABRUPT)
#: Ends that are also run with the patience that a user has who sets none.
DEFAULT: Final = ("return", "sys_exit_3", "sigint", "process_fork")
#: A busy machine may take so long; judged is how long it took.
END_SECONDS: Final = 120.0


@dataclass
class End:
    """How a program ended, as seen from outside."""

    code: int
    stdout: str
    stderr: str
    #: From right before the program left to its end.
    took_ms: float
    #: Processor time from then on.
    cpu_ms: float
    issued: list[str] = field(default_factory=list)
    journaled: set[str] = field(default_factory=set)
    #: How often a storage that is dead was asked to write.
    faults: int = 0


def run(
    python: str,
    how: str,
    mode: str,
    url: str,
    *options: str,
    settle: bool = False,
    patient: bool = False,
    environment: Mapping[str, str] | None = None,
) -> End:
    """Run the program to its end; a *patient* one may take its time to store what it has."""
    more = {"LLMOPS_SHUTDOWN_SECONDS": "60"} if patient else {}
    more |= environment or {}
    with tempfile.TemporaryDirectory() as folder:
        oracle = Path(folder) / "oracle"
        before = cpu_ns()
        process = subprocess.Popen(
            [python, *options, str(HERE / "exits_app.py"), how, mode, url, "SETTLE" if settle else "-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            env={**os.environ, **more, "ORACLE": str(oracle)}, cwd=ROOT,
        )  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            stderr += "\nit did not end"
        except BaseException:  # a test that is out of time leaves nothing behind
            process.kill()
            process.communicate()
            raise
        ended, cpu = time.monotonic_ns(), cpu_ns() - before
        said = [line.split() for line in oracle.read_text().splitlines()]
    left = [(int(words[1]), int(words[2])) for words in said if words[0] == "x"]
    left_ns, left_cpu = max(left, default=(ended, cpu))
    return End(
        process.returncode, stdout, stderr, (ended - left_ns) / 1e6, (cpu - left_cpu) / 1e6,
        [words[1] for words in said if words[0] == "i"],
        {span for words in said if words[0] == "j" for span in words[1:]},
        sum(words[0] == "f" for words in said),
    )  # fmt: skip


def cpu_ns() -> int:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((used.ru_utime + used.ru_stime) * 1e9)


_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")
_FORK_WARNING: Final = re.compile(
    r"[^\n]*DeprecationWarning: This process \(pid=\d+\) is multi-threaded[^\n]*\n( [^\n]*\n)*"
)


def without_fork_warning(text: str) -> str:
    """Python 3.12 warns of a fork in a process with threads; ours are threads. A limit, printed."""
    return _ADDRESS.sub("0x", _FORK_WARNING.sub("", text))


def stored_ids(url: str) -> list[str]:
    """Return the ids that lie in Parquet files, without the journals' tails."""
    import pyarrow.parquet as pq

    paths = Path(url.partition(":")[2]).glob("*/events_*.parquet")
    return [i for path in paths for i in pq.read_table(path, columns=["span_id"])[0].to_pylist()]


def recovered_ids(url: str) -> list[str]:
    """Start once more, and return the ids of all spans."""
    with Monitor(url) as monitor:
        monitor.flush(60)
    with open_storage(url) as storage:
        ids: list[str] = storage.query(columns=["span_id"])["span_id"].to_pylist()
    return ids


def cell(python: str, version: str, how: str, *, settle: bool, patient: bool = True) -> Row:
    """Compare one end with its twin, and what was recorded with what is stored."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"parquet:{folder}/data"
        twin = run(python, how, "TWIN", url)
        # Judged is what is stored; how long it takes has rows of its own.
        end = run(python, how, "MONITORED", url, settle=settle, patient=patient)
        at_once = set(stored_ids(url))
        ids = recovered_ids(url)
    issued, later = set(end.issued), set(ids)
    problems = []
    if (end.code, end.stdout) != (twin.code, twin.stdout):
        problems.append(
            f"code {end.code} and {end.stdout!r}, the twin {twin.code}, {twin.stdout!r}"
        )
    if without_fork_warning(end.stderr) != without_fork_warning(twin.stderr):
        problems.append(f"stderr {end.stderr[-600:]!r}, the twin's {twin.stderr[-300:]!r}")
    wanted = issued if how in (*STORED, *EITHER) or settle else end.journaled
    if how == "atexit_before":  # its last run comes after us: it is refused, and counted
        wanted = set(end.issued[:3])
    if (how in STORED or EITHER.get(how, version) != version) and wanted - at_once:
        problems.append(f"{len(wanted - at_once)} not stored at exit")
    if wanted - later or len(ids) != len(later) or later - issued:
        problems.append(f"lost {sorted(wanted - later)}, {len(ids) - len(later)} doubled")
    if len(issued) < 3:
        problems.append("the fault did not happen: fewer than three runs were recorded")
    lost = len(issued - later)
    detail = f"exit {end.code}; {len(issued)} recorded, {len(at_once)} stored at exit, "
    detail += f"{len(later - at_once)} by the next start, {lost} lost"
    if _FORK_WARNING.search(end.stderr):
        detail += "; Python warns of the fork"
    when = " once journaled" if settle else "" if patient else ", with the default patience"
    text = f"{detail}; {'; '.join(problems)}" if problems else detail
    return Row("exits", f"{how}{when}", version, not problems, text)


# ---- what it says ----


def p95(values: Sequence[float]) -> float:
    """Return what 95 of 100 values do not exceed."""
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


def quiet(python: str, version: str, repeats: int) -> Row:
    """Exit with every warning on: nothing may be said with a healthy storage, no traceback ever."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            mode = ("MONITORED", "MONITORED", "refuses", "MONITORED", "MONITORED")[number % 5]
            url, healthy = f"parquet:{folder}/{number}", mode == "MONITORED"
            end = run(python, "return", mode, url, "-X", "dev", patient=healthy)
            bad = end.stderr if healthy else "Traceback" in end.stderr
            said += [end.stderr] if bad or end.code else []
    detail = f"{repeats} exits with -X dev, {len(said)} of them said something"
    return Row("exits", "quiet", version, not said, f"{detail}{said[0][-800:] if said else ''}")


# ---- a process that is stopped and goes on ----

FROZEN = """
import asyncio, json, sys, time
from llmops_core import Monitor, worker
url, worker.WATCH_SECONDS = sys.argv[1], float(sys.argv[2])
class Slow:
    async def export(self, batch):
        if "exported" in [span.name for span in batch.rows]:
            print("exporting", flush=True)
            await asyncio.sleep(worker.WATCH_SECONDS)
    async def close(self):
        pass
monitor = Monitor(url, exporters=[Slow()], flush_interval_seconds=0.05)
def start(number, name):
    monitor.recorder.start(number, None, {"kind": "tool", "name": name})
def end(number):
    monitor.recorder.end(number, None, {"outcome": "ok"})
def call(number):
    try:
        start(number, "call")
        end(number)
    finally:
        began = time.monotonic()
        assert monitor.flush(60).complete
        print(f"{1000 * (time.monotonic() - began):.1f}", flush=True)
for number, line in enumerate(sys.stdin, 1):
    if number > 1:
        end(1000 + number - 1)
    call(number)
    start(1000 + number, "open")
    start(2000 + number, "exported")
    end(2000 + number)
end(1000 + number)
assert monitor.flush(60).complete
stats = monitor.stats()
print(json.dumps({"workers": stats["workers"], **stats["exporters"]["Slow"]}), file=sys.stderr)
"""
#: For how many intervals of the watchdog's a process is stopped: it calls stuck what stands still
#: for ten looks. Two more, so that counting seconds instead would be seen.
FROZEN_LOOKS: Final = 12


def frozen(python: str, version: str, calls: int, interval: float) -> Row:
    """Stop the process between calls, as a serverless platform does, and let it go on.

    A run is open meanwhile, and an export under way. *interval* is the watchdog's: 1 is the real one.
    """
    seconds = FROZEN_LOOKS * interval
    with tempfile.TemporaryDirectory() as folder:
        path, url = Path(folder) / "app.py", f"parquet:{folder}/data"
        path.write_text(FROZEN)
        app = subprocess.Popen(
            [python, str(path), url, str(interval)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert app.stdin
        assert app.stdout
        late = threading.Timer(calls * seconds + 120, app.kill)  # then the next line is empty
        late.start()
        took = []
        for _ in range(calls):
            app.stdin.write("go\n")
            app.stdin.flush()
            took.append(float(app.stdout.readline() or "inf"))
            app.stdout.readline()  # it exports
            app.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            app.send_signal(signal.SIGCONT)
        app.stdin.close()
        stderr = app.stderr.read() if app.stderr else ""
        code = app.wait(30)
        late.cancel()
        app.stdout.close()
        if app.stderr:
            app.stderr.close()
        with open_storage(url) as storage:
            rows = storage.query(columns=["name", "duration_ms"]).to_pylist()
    slow = max(row["duration_ms"] for row in rows if row["name"] == "call")
    waited = min(row["duration_ms"] for row in rows if row["name"] == "open")
    detail = (
        f"{calls} calls, {calls} times stopped for {seconds:g} s: {len(rows)} of {3 * calls} stored, "
        f"the longest call {slow:.1f} ms, a flush takes {p95(took):.0f} ms at p95"
    )
    calm = not code and _is_calm(stderr, 3 * calls)
    right = len(rows) == 3 * calls and slow < 1000 * seconds <= waited
    passed = right and p95(took) <= 200 and calm
    return Row("exits", "stopped between calls", version, passed, detail if calm else stderr)


def _is_calm(stderr: str, spans: int) -> bool:
    """Whether a program took nobody for stuck, lost no export, and said nothing else."""
    try:
        told = json.loads(stderr)
    except ValueError:
        return False
    exports = told["exported"] == spans and not told["failed"] and not told["cut_off"]
    return exports and not any(worker["stuck"] for worker in told["workers"].values())


# ---- event loops ----

#: Packages that bring a loop of their own or change the one that there is.
LOOPS: Final = ("asyncio", "uvloop", "nest_asyncio", "anyio", "trio", "gevent", "langgraph")


def loops(python: str, version: str, sort: str) -> Row:
    """Run many event loops in one program: each run is there once, where it belongs, as it ended."""
    scenario = f"event loops: {sort}"
    with tempfile.TemporaryDirectory() as folder:
        url = f"parquet:{folder}/data"
        # Not with -X dev: asyncio then tells of each step that a busy machine makes slow.
        command = [python, str(HERE / "exits_loops.py"), url, sort]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode or done.stderr:
            return Row("exits", scenario, version, False, done.stderr[-1500:])
        expected = json.loads(done.stdout)["expected"]
        with open_storage(url) as storage:
            columns = ["span_id", "parent_id", "name", "outcome"]
            rows = storage.query(columns=columns).to_pylist()
    names = {row["span_id"]: row["name"] for row in rows}
    found = collections.Counter(
        f"{row['name']}{_above(names, row['parent_id'])} {row['outcome']}" for row in rows
    )
    detail = ", ".join(f"{found[name]} of {count} {name}" for name, count in expected.items())
    return Row("exits", scenario, version, found == expected, detail)


def _above(names: dict[str, str], parent: str | None) -> str:
    return f" of {names.get(parent)}" if parent is not None else ""


def has(python: str, package: str) -> bool:
    """Whether an interpreter has a package."""
    code = f"import importlib.util; raise SystemExit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


# ---- interpreters ----


def interpreters() -> dict[str, str]:
    """Return each supported version and a working interpreter, found as .ci/run finds them."""
    found: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    for version in ("3.11", "3.12", "3.13"):
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            found[version] = sys.executable
            continue
        for python in (
            f"python{version}",
            *map(str, pyenv.glob(f"{version}*/bin/python{version}")),
        ):
            try:
                subprocess.run([python, "-c", ""], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            found[version] = python
            break
        else:
            raise RuntimeError(f"no working python{version} on PATH or under pyenv")
    return found


def with_core(python: str, folder: Path) -> str:
    """Return an interpreter that has the core and the loops; this one has them."""
    if python == sys.executable:
        return python
    subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    made = str(folder / "bin" / "python")
    loops = [name for name in LOOPS if name != "asyncio"]
    subprocess.run([made, "-m", "pip", "install", "-q", "-e", str(ROOT), *loops], check=True)
    return made


def lab(quick: bool) -> Iterator[Row]:
    """Yield a row for each end and version, for the time that it takes, and for a stopped process."""
    with tempfile.TemporaryDirectory() as folder:
        for version, python in interpreters().items():
            if quick and python != sys.executable:
                continue
            yield from of_version(with_core(python, Path(folder) / version), version, quick)


def of_version(python: str, version: str, short: bool) -> Iterator[Row]:
    """Yield the rows of one interpreter."""
    for how in WAYS:
        if how in ABRUPT:
            yield cell(python, version, how, settle=True)
        if how not in ABRUPT or not short:
            yield cell(python, version, how, settle=False)
        if how in DEFAULT and not short:
            yield cell(python, version, how, settle=False, patient=False)
    yield quiet(python, version, 10 if short else 170)
    import exits_times  # it imports this module

    whole = not short and has(python, "pandas")
    yield from exits_times.lab(python, version, short=short, whole=whole)
    for sort in LOOPS:
        if has(python, sort):
            yield loops(python, version, sort)
        else:
            lacks = f"not installed: {python} -m pip install {sort}"
            yield Row("exits", f"event loops: {sort}", version, False, lacks)
    yield frozen(python, version, 3 if short else 5, 0.05 if short else 1)
