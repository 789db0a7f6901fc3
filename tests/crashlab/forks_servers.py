"""Web servers that fork their workers, or are one process: what they record, and that they go."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from forks_oracle import environment, judged, told
from rows import Row

__all__ = ["servers"]

WORKERS: Final = 4
#: How long a server may take to go after a SIGTERM.
GONE_SECONDS: Final = 3.0
#: So many requests, and gunicorn replaces the worker.
MAX_REQUESTS: Final = 15
#: How long it may take until so many workers have served as are asked for.
ENOUGH_SECONDS: Final = 120.0
WEB: Final = """
import os
from forks_worker import record
from llmops_core import Monitor
monitor = Monitor(os.environ["LLMOPS_STORAGE_URL"])
def app(environ, start_response):
    record(monitor, int(environ["PATH_INFO"][1:]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
async def lifespan(receive, send):
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await monitor.aclose()
    await send({"type": "lifespan.shutdown.complete"})
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan" and os.environ.get("CLOSES"):
        await lifespan(receive, send)
    if scope["type"] != "http":
        return
    record(monitor, int(scope["path"][1:]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, number: int) -> bool | None:
    """Send one request; say whether it was answered, and None where nobody listened."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/{number}")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ask_all(port: int, requests: int, enough: Callable[[], bool]) -> tuple[int, int]:
    """Send requests from several threads, and more until it is *enough*, each with its own number.

    Returns how many reached a server, and how many of them it answered.
    """
    numbers = itertools.count(1)
    answers: list[bool] = []
    deadline = time.monotonic() + ENOUGH_SECONDS

    def client() -> None:
        for number in numbers:
            if time.monotonic() > deadline or (len(answers) >= requests and enough()):
                return
            answer = ask(port, number)
            if answer is None:  # it has not begun to listen
                time.sleep(0.05)
            else:
                answers.append(answer)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return len(answers), sum(answers)


def with_server(
    command: Sequence[str],
    scenario: str,
    cell: str,
    requests: int,
    *,
    processes: int = 1,
    refuses: float = 0.0,
    closes: bool = False,
    gone_seconds: float = GONE_SECONDS,
) -> Row:
    """Serve requests that record ten spans each, stop the server by SIGTERM, and compare.

    It goes on until so many *processes* have served. A server that lets go of a connection when it
    replaces a worker *refuses* such a share at most. One that *closes* the monitor in its shutdown
    leaves nothing to the next start.
    """
    with tempfile.TemporaryDirectory() as folder:
        url, port, oracle = f"parquet:{folder}/data", free_port(), Path(folder) / "oracle"
        (Path(folder) / "web.py").write_text(WEB)
        more = {"LLMOPS_STORAGE_URL": url, "CLOSES": "1" if closes else ""}
        server = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            cwd=folder, env=environment(oracle, **more), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        sent, answered = ask_all(port, requests, lambda: len(told(oracle)[1]) >= processes)
        server.send_signal(signal.SIGTERM)
        began = time.monotonic()
        stderr = server.communicate(timeout=60)[1]
        took = time.monotonic() - began
        detail = f", {answered} of {sent} answered, gone after {took:.1f} s"
        row = judged(
            scenario, cell, url, oracle, detail,
            tasks=answered, processes=processes, unanswered=sent - answered, at_exit=closes,
        )  # fmt: skip
    whole = sent - answered <= refuses * sent and "Traceback" not in stderr and took <= gone_seconds
    detail = row.detail if whole else f"{row.detail}; {stderr[-1500:]}"
    return Row("forks", scenario, cell, row.passed and whole, detail)


def servers(
    requests: int, *, quick: bool = False, gone_seconds: float = GONE_SECONDS
) -> Iterator[Row]:
    """Yield a row for each sort of gunicorn worker, and for uvicorn."""
    if not _has("gunicorn"):
        yield _missing("gunicorn")
        if quick:
            return
    else:
        yield from _gunicorn(requests, quick=quick, gone_seconds=gone_seconds)
    if not _has("uvicorn"):
        yield _missing("uvicorn")
    elif not quick:
        yield from _uvicorn(requests)


def _gunicorn(requests: int, *, quick: bool, gone_seconds: float) -> Iterator[Row]:
    bare = ["gunicorn", "-b", "127.0.0.1:{port}", "-w", str(WORKERS), "--log-level", "error"]
    preload = [*bare, "--preload", "--max-requests", str(MAX_REQUESTS)]
    # Twenty replacements in a full run.
    many = WORKERS + max(1, requests // 20)
    name = f"gunicorn --preload --max-requests {MAX_REQUESTS}"
    yield with_server(
        [*preload, "web:app"], name, "sync", requests, processes=many, gone_seconds=gone_seconds
    )
    if quick:
        return
    threads = [*preload, "-k", "gthread", "--threads", "4", "web:app"]
    yield with_server(threads, name, "gthread", requests, processes=many)
    if _has("uvicorn_worker"):
        asgi = [*preload, "-k", "uvicorn_worker.UvicornWorker", "web:asgi"]
        # It replaces a worker without waiting for open connections.
        yield with_server(asgi, name, "uvicorn", requests, processes=many, refuses=0.1)
    else:
        yield _missing("uvicorn-worker")
    yield with_server([*bare, "web:app"], "gunicorn", "sync", requests, processes=WORKERS)


def _uvicorn(requests: int) -> Iterator[Row]:
    uvicorn = ["uvicorn", "--port", "{port}", "--log-level", "error", "web:asgi"]
    many = {"four workers": WORKERS, "one process": 1}
    for cell, count in many.items():
        command = [*uvicorn, "--workers", str(count)] if count > 1 else uvicorn
        yield with_server(command, "uvicorn", cell, requests, processes=count)
        yield with_server(
            command,
            "uvicorn, aclose() in its lifespan",
            cell,
            requests,
            processes=count,
            closes=True,
        )


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _missing(package: str) -> Row:
    return Row("forks", package, "all", False, f"not installed: pip install {package}")
