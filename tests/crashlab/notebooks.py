"""A notebook: run as a whole, interrupted, run again, reloaded, its kernel restarted.

``python tests/crashlab/run.py --only notebooks``. Each row is a kernel of its own, spoken to as a
notebook's server does.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))

from rows import Row

from llmops_core import open_storage

__all__ = ["SCENARIOS", "lab"]

CELL_SECONDS: Final = 120.0
NEEDED: Final = ("ipykernel", "jupyter_client", "langchain_core")
SETUP: Final = """
from llmops_core import initialize_monitoring_sync, monitor_llm
monitor = initialize_monitoring_sync(storage=URL)
@monitor_llm("answer")
async def answer(seconds=0):
    await __import__("asyncio").sleep(seconds)
@monitor_llm("wait")
def wait():
    print("waiting", flush=True)
    __import__("time").sleep(3600)
"""
CHAIN: Final = """
from langchain_core.runnables import RunnableLambda
from llmops_integrations.langchain import LLMOpsCallbackHandler
chain = RunnableLambda(lambda number: 2 * number)
asked = chain.invoke(1, {"callbacks": [LLMOpsCallbackHandler()]})
asked += await chain.ainvoke(2, {"callbacks": [LLMOpsCallbackHandler()]})
print(asked)
"""
THREADS: Final = """
import json, threading
print(json.dumps(sorted(t.name for t in threading.enumerate() if t.name.startswith("llmops"))))
"""
MODULE: Final = """
from llmops_core import monitor_llm
@monitor_llm("reloaded")
def run():
    return VERSION
"""


class Kernel:
    """A kernel, and the cells that are run in it."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self.folder, self.url = folder, f"parquet:{folder / 'data'}"
        environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython")}
        self.manager = KernelManager(kernel_name="python3", shutdown_wait_time=30)
        self.manager.kernel_spec.argv = [
            sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40",
        ]  # fmt: skip
        self.environment = environment
        self.manager.start_kernel(env=environment, cwd=str(folder))
        self.client = self._connected()

    def _connected(self) -> Any:
        client = self.manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=CELL_SECONDS)
        return client

    def run(self, code: str, *, interrupt_at: str | None = None) -> tuple[str, str]:
        """Run a cell; return what it printed, and the name of what it raised, if it did."""
        asked = self.client.execute(code.replace("URL", repr(self.url)))
        printed, raised = "", ""
        deadline = time.monotonic() + CELL_SECONDS
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
                if interrupt_at is not None and interrupt_at in printed:
                    interrupt_at = None
                    self.manager.interrupt_kernel()
            elif kind == "error":
                raised = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, raised
        return printed, "TimeoutError"

    def threads(self) -> list[str]:
        """Return the names of our threads."""
        names: list[str] = json.loads(self.run(THREADS)[0])
        return names

    def restart(self) -> None:
        """Restart it, as the button does."""
        self.client.stop_channels()
        self.manager.restart_kernel(env=self.environment, cwd=str(self.folder))
        self.client = self._connected()

    def close(self) -> None:
        """Shut it down, as closing the notebook does."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()
        self.manager.cleanup_resources()

    def found(self) -> collections.Counter[str]:
        """Return how often which span is stored, by name and outcome."""
        with open_storage(self.url) as storage:
            rows = storage.query(columns=["name", "outcome"]).to_pylist()
        return collections.Counter(f"{row['name']} {row['outcome']}" for row in rows)


Scenario = Callable[[Kernel], tuple[dict[str, int], list[str]]]
#: What is done in a kernel; returns what must be stored, and what was wrong meanwhile.
SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    """Register what is done in a notebook."""

    def register(act: Scenario) -> Scenario:
        SCENARIOS[name] = act
        return act

    return register


def _raised(*answers: tuple[str, str]) -> list[str]:
    return [raised for _, raised in answers if raised]


@scenario("all cells, three times")
def _run_all(kernel: Kernel) -> tuple[dict[str, int], list[str]]:
    cells = (SETUP, CHAIN, "await answer()")
    answers = [kernel.run(cell) for _ in range(3) for cell in cells]
    problems = _raised(*answers)
    problems += [f"printed {said!r}" for said, _ in answers[1::3] if said != "6\n"]
    return {"RunnableLambda ok": 6, "answer ok": 3}, problems


@scenario("set-up cell run 20 times")
def _set_up_again(kernel: Kernel) -> tuple[dict[str, int], list[str]]:
    problems = _raised(kernel.run(SETUP), kernel.run("await answer()"))
    threads = kernel.threads()
    for _ in range(20):
        problems += _raised(kernel.run(SETUP))
    problems += _raised(kernel.run("await answer()"))
    if kernel.threads() != threads:
        problems.append(f"threads {kernel.threads()}, at first {threads}")
    return {"answer ok": 2}, problems


@scenario("a cell is interrupted")
def _interrupted(kernel: Kernel) -> tuple[dict[str, int], list[str]]:
    problems = _raised(kernel.run(SETUP))
    for _ in range(3):
        _, raised = kernel.run("wait()", interrupt_at="waiting")
        if raised != "KeyboardInterrupt":
            problems.append(f"the interrupted cell raised {raised or 'nothing'}")
        problems += _raised(kernel.run("await answer()"))
    return {"wait cancelled": 3, "answer ok": 3}, problems


@scenario("%autoreload")
def _reloaded(kernel: Kernel) -> tuple[dict[str, int], list[str]]:
    module = kernel.folder / "chains.py"
    module.write_text(MODULE.replace("VERSION", "'version 0'"))
    problems = _raised(kernel.run(SETUP))
    load = "%load_ext autoreload\n%autoreload 2\nimport sys; sys.path.insert(0, '')\nimport chains"
    problems += _raised(kernel.run(load))
    for version in range(5):
        module.write_text(MODULE.replace("VERSION", f"'version {version}'"))
        os.utime(module, (0, time.time() + version))  # it looks at times alone
        said, raised = kernel.run("print(chains.run())")
        if (said, raised) != (f"version {version}\n", ""):
            problems.append(f"version {version}: {said!r} {raised}")
    return {"reloaded ok": 5}, problems


@scenario("the kernel is restarted")
def _restarted(kernel: Kernel) -> tuple[dict[str, int], list[str]]:
    problems = []
    for _ in range(3):
        problems += _raised(kernel.run(SETUP), kernel.run("await answer()"))
        kernel.restart()
    return {"answer ok": 3}, problems


def row(name: str) -> Row:
    """Run one scenario in a kernel of its own."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(Path(folder))
        try:
            expected, problems = SCENARIOS[name](kernel)
        finally:
            kernel.close()
        found = kernel.found()
        journals = list(Path(folder, "data", ".journal").iterdir())
    if found != expected:
        problems.append(f"stored {dict(found)}")
    if journals:
        problems.append(f"{len(journals)} journals are left")
    detail = ", ".join(f"{found[what]} of {count} {what}" for what, count in expected.items())
    version = "{}.{}".format(*sys.version_info)
    text = f"{detail}; {'; '.join(problems)}" if problems else detail
    return Row("notebooks", name, version, not problems, text)


def lab(quick: bool) -> Iterator[Row]:
    """Yield a row for each scenario; one that fails where there is no kernel to run them in."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        lacks = f"not installed: pip install {' '.join(missing)}"
        yield Row("notebooks", "all of them", "here", False, lacks)
    else:
        yield from map(row, SCENARIOS)
