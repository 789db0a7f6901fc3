"""Forks: with each lock of ours held by another thread, and workers as people run them.

``python tests/crashlab/run.py --only forks``; the oracle is this process, which knows what each child
was told to record.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from rows import Row

from llmops_core import Monitor, open_storage

HERE = Path(__file__).parent
WORKERS = 4


def span_ids(url: str) -> list[str]:
    """Store what dead writers left, and return the ids of all spans."""
    with Monitor(url) as monitor:
        monitor.flush(60)
    with open_storage(url) as storage:
        ids: list[str] = storage.query(columns=["span_id"])["span_id"].to_pylist()
    return ids


def left_behind(url: str) -> list[str]:
    """Return the journals that are still there."""
    return sorted(p.name for p in Path(url.partition(":")[2], ".journal").iterdir())


def judged(
    scenario: str, cell: str, url: str, expected: int, detail: str = "", unanswered: int = 0
) -> Row:
    """Compare what is stored with what was recorded, right away and after a recovery.

    Of the *unanswered* requests nobody knows whether they were begun.
    """
    stale = left_behind(url)
    ids = span_ids(url)
    doubled = len(ids) - len(set(ids))
    text = f"{len(set(ids))} of {expected} spans, {doubled} doubled, {len(stale)} journals left"
    passed = not doubled and not left_behind(url)
    passed = passed and expected <= len(ids) <= expected + 10 * unanswered
    return Row("forks", scenario, cell, passed, f"{text}{detail}")


# ---- a lock is held ----


def with_locks(forks: int) -> Row:
    """Fork while each lock that a live monitor reaches is held, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"parquet:{folder}/data"
        command = [sys.executable, str(HERE / "forks_app.py"), url, str(forks)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
        if done.returncode:
            return Row("forks", "a lock is held", "all", False, done.stderr[-2000:])
        result = json.loads(done.stdout.splitlines()[-1])
        ids = span_ids(url)
    expected = 5 + 3 * forks
    deadlocks = len(result["stuck"])
    doubled = len(ids) - len(set(ids))
    detail = (
        f"{len(result['locks'])} locks, {forks} forks, {deadlocks} deadlocks, "
        f"{len(set(ids))} of {expected} spans, {doubled} doubled"
    )
    if result["stuck"] or result["never_held"]:
        detail += f"; stuck: {result['stuck'][:5]}; never held: {result['never_held']}"
    passed = not deadlocks and not result["never_held"] and len(ids) == len(set(ids)) == expected
    return Row("forks", "a lock is held", "{}.{}".format(*sys.version_info), passed, detail)


# ---- multiprocessing, as celery's prefork works ----

PREFORK = """
import multiprocessing, os, sys
from llmops_core import Monitor
URL, METHOD, TASKS = sys.argv[1], sys.argv[2], int(sys.argv[3])
monitor = None
def task(number):
    global monitor
    if monitor is None:
        monitor = Monitor(URL)
    for i in range(10):
        run = (number << 40) + i + 1
        monitor.recorder.start(run, None, {"kind": "tool", "name": "task"})
        monitor.recorder.end(run, None, {"outcome": "ok"})
    return os.getpid()
if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    if METHOD == "fork":
        monitor = Monitor(URL)
    pool = context.Pool(4, maxtasksperchild=25)
    pids = set(pool.map(task, range(1, TASKS + 1), chunksize=1))
    pool.close()
    pool.join()
    print(len(pids))
"""

EXECUTOR = """
import concurrent.futures, multiprocessing, os, sys
from llmops_core import Monitor
URL, METHOD, TASKS = sys.argv[1], sys.argv[2], int(sys.argv[3])
monitor = None
def task(number):
    global monitor
    if monitor is None:
        monitor = Monitor(URL)
    for i in range(10):
        run = (number << 40) + i + 1
        monitor.recorder.start(run, None, {"kind": "tool", "name": "task"})
        monitor.recorder.end(run, None, {"outcome": "ok"})
    return os.getpid()
if __name__ == "__main__":
    if METHOD == "fork":
        monitor = Monitor(URL)
    context = multiprocessing.get_context(METHOD)
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        print(len(set(pool.map(task, range(1, TASKS + 1)))))
"""

DOUBLE = """
import os, sys
from llmops_core import Monitor
monitor, TASKS = Monitor(sys.argv[1]), int(sys.argv[3])
for number in range(1, TASKS + 1):
    if os.fork() == 0:
        if os.fork() == 0:
            for i in range(10):
                run = (number << 40) + i + 1
                monitor.recorder.start(run, None, {"kind": "tool", "name": "task"})
                monitor.recorder.end(run, None, {"outcome": "ok"})
            sys.exit(0)
        os.wait()
        sys.exit(0)
    if number % 4 == 0:
        for _ in range(4): os.wait()
print(TASKS)
"""


#: Four hundred processes that each open and flush a monitor take ten minutes of a busy machine.
END_SECONDS: Final = 1800


def with_processes(script: str, scenario: str, method: str, tasks: int) -> Row:
    """Run tasks in worker processes that come and go; ten spans each."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"parquet:{folder}/data"
        path = Path(folder) / "app.py"
        path.write_text(script)
        command = [sys.executable, str(path), url, method, str(tasks)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=END_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as late:
            return Row("forks", scenario, method, False, str(late))
        if done.returncode or "Traceback" in done.stderr:
            return Row("forks", scenario, method, False, done.stderr[-2000:])
        return judged(scenario, method, url, tasks * 10, f", {done.stdout.strip()} processes")


# ---- gunicorn ----

WEB = """
import os, sys
from llmops_core import Monitor
monitor = Monitor(os.environ["LLMOPS_STORAGE_URL"])
def record(number):
    for i in range(10):
        run = (number << 40) + i + 1
        monitor.recorder.start(run, None, {"kind": "tool", "name": "request"})
        monitor.recorder.end(run, None, {"outcome": "ok"})
def app(environ, start_response):
    record(int(environ["PATH_INFO"][1:]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    record(int(scope["path"][1:]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, number: int) -> bool:
    """Send one request; say whether it was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/{number}")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask_all(port: int, numbers: Sequence[int]) -> set[int]:
    """Send requests from several threads; return those that were answered."""
    answered: set[int] = set()
    waiting = list(numbers)

    def client() -> None:
        while waiting:
            number = waiting.pop()
            if ask(port, number):
                answered.add(number)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return answered


def with_server(
    command: Sequence[str], scenario: str, cell: str, requests: int, *, refuses: int = 0
) -> Row:
    """Serve requests that record ten spans each, stop the server by SIGTERM, and compare.

    A server that lets go of a connection when it replaces a worker *refuses* so many at most.
    """
    with tempfile.TemporaryDirectory() as folder:
        url, port = f"parquet:{folder}/data", free_port()
        (Path(folder) / "web.py").write_text(WEB)
        environment = {**os.environ, "LLMOPS_STORAGE_URL": url}
        server = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not ask(port, 1) and time.monotonic() < deadline and server.poll() is None:
            time.sleep(0.1)
        answered = ask_all(port, range(2, requests + 1)) | {1}
        server.send_signal(signal.SIGTERM)
        began = time.monotonic()
        stderr = server.communicate(timeout=60)[1]
        took = time.monotonic() - began
        detail = f", {len(answered)} of {requests} answered, gone after {took:.1f} s"
        row = judged(scenario, cell, url, len(answered) * 10, detail, requests - len(answered))
    whole = len(answered) >= requests - refuses and "Traceback" not in stderr and took < 5
    detail = row.detail if whole else f"{row.detail}; {stderr[-1500:]}"
    return Row("forks", scenario, cell, row.passed and whole, detail)


def servers(requests: int, *, quick: bool = False) -> Iterator[Row]:
    """Yield a row for each sort of gunicorn worker, and for uvicorn."""
    gunicorn = ["gunicorn", "-b", "127.0.0.1:{port}", "-w", str(WORKERS), "--preload"]
    gunicorn += ["--max-requests", "50", "--log-level", "error"]
    if importlib.util.find_spec("gunicorn"):
        yield with_server([*gunicorn, "web:app"], "gunicorn --preload", "sync", requests)
        if quick:
            return
        threads = [*gunicorn, "-k", "gthread", "--threads", "4", "web:app"]
        yield with_server(threads, "gunicorn --preload", "gthread", requests)
        if importlib.util.find_spec("uvicorn_worker"):
            asgi = [*gunicorn, "-k", "uvicorn_worker.UvicornWorker", "web:asgi"]
            many = requests // 20  # it replaces a worker without waiting for open connections
            yield with_server(asgi, "gunicorn --preload", "uvicorn", requests, refuses=many)
    if importlib.util.find_spec("uvicorn"):
        uvicorn = ["uvicorn", "--port", "{port}", "--log-level", "error", "web:asgi"]
        yield with_server(uvicorn, "uvicorn", "one process", requests)
        workers = [*uvicorn, "--workers", str(WORKERS)]
        yield with_server(workers, "uvicorn", "four workers", requests)


def lab(quick: bool) -> Iterator[Row]:
    """Yield a row for the locks, and one for each sort of worker: 4,000 spans by four workers."""
    yield with_locks(40 if quick else 1000)
    tasks = 100 if quick else 400
    for method in ("fork",) if quick else ("fork", "spawn", "forkserver"):
        yield with_processes(PREFORK, "Pool, 25 tasks a child", method, tasks)
        if not quick:
            yield with_processes(EXECUTOR, "ProcessPoolExecutor", method, tasks)
    yield with_processes(DOUBLE, "double fork", "fork", 20 if quick else 400)
    yield from servers(100 if quick else 400, quick=quick)
