"""``llmops run`` is ``python``, but for what is recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langgraph")

from llmops_core import open_storage

#: Says all that a program can see of how it was started.
MIRROR = """\
import json, multiprocessing, os, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "file": globals().get("__file__"),
    "spec": getattr(__spec__, "name", None), "main": sys.modules["__main__"].__dict__ is globals(),
    "package": __package__, "modules": [m for m in ("langchain_core", "crewai", "llmops_core",
    "typer", "pyarrow") if m in sys.modules], "finders": len(sys.meta_path) > 0,
}))
"""
CHAIN = """\
from langchain_core.tools import tool
@tool
def search(query: str) -> str:
    "Searches."
    return query
search.invoke("x")
"""


class Place:
    """A folder with a program, a storage, and both ways to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = f"parquet:{folder / 'spans'}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("LLMOPS_", "PYTHONPATH"))},
            "LLMOPS_STATE_DIR": str(folder / "state"),
        }

    def write(self, text: str, name: str = "app.py") -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def command(self, *args: str, ours: bool = True) -> list[str]:
        own = ["-m", "llmops_core.cli", "run", "--storage", self.storage] if ours else []
        return [sys.executable, *own, *args]

    def run(self, *args: str, ours: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args, ours=ours),
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def names(self) -> list[str]:
        with open_storage(self.storage) as reader:
            return sorted(row["name"] for row in reader.query(columns=["name"]).to_pylist())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


PROGRAMS = {
    "file": ["app.py", "a", "--storage", "mine", "-m", "--", "-h", ""],
    "file elsewhere": ["sub/app.py", "x"],
    "module": ["-m", "app", "--flag", "x", "-m"],
    "package": ["-m", "sub", "--storage=mine"],
    "missing file": ["nothing.py"],
    "missing module": ["-m", "nothing"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_sees_what_it_would_see_under_python(name: str, place: Place) -> None:
    for file in ("app.py", "sub/app.py", "sub/__main__.py"):
        place.write(MIRROR, file)
    plain = place.run(*PROGRAMS[name], ours=False, PYTHONPATH=str(place.folder / "sub"))
    under = place.run(*PROGRAMS[name], PYTHONPATH=str(place.folder / "sub"))
    assert (under.returncode, under.stdout, under.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )


ENDS = {
    "exit code": "import sys; sys.exit(37)",
    "exit text": "import sys; sys.exit('no way')",
    "error": "def f():\n    raise KeyError('x')\nf()",
    "syntax": "def f(:\n",
    "interrupt": "raise KeyboardInterrupt",
    "at exit": "import atexit; atexit.register(print, 'bye'); print('hello')",
    "thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(.1), print(__name__))).start()",
}


@pytest.mark.parametrize("name", ENDS)
def test_it_ends_as_it_would_under_python(name: str, place: Place) -> None:
    place.write(ENDS[name] + "\n")
    plain, under = (place.run("app.py", ours=ours) for ours in (False, True))
    assert (under.returncode, under.stdout, under.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )


def test_signals_reach_the_program_itself(place: Place) -> None:
    place.write(
        "import signal, sys, os\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'told\\n'), sys.exit(5)))\n"
        "print(os.getpid(), flush=True)\n"
        "signal.pause()\n"
    )
    program = subprocess.Popen(
        place.command("app.py"),
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        assert int(program.stdout.readline()) == program.pid
        program.send_signal(signal.SIGTERM)
        assert program.stdout.readline() == "told\n"
        assert program.wait(60) == 5


@pytest.mark.parametrize("args", [["app.py"], ["-m", "app"]], ids=["file", "module"])
def test_what_it_runs_is_recorded_also_where_it_fails(args: list[str], place: Place) -> None:
    place.write(CHAIN + "raise SystemExit(3)\n")
    done = place.run(*args)
    assert (done.returncode, done.stderr) == (3, "")
    assert place.names() == ["search"]


def test_its_child_processes_are_recorded_too(place: Place) -> None:
    place.write(CHAIN, "child.py")
    place.write(
        "import multiprocessing, subprocess, sys\n"
        "def work():\n    import child\n"
        "if __name__ == '__main__':\n"
        "    subprocess.run([sys.executable, 'child.py'], check=True)\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    process.start(); process.join(); assert process.exitcode == 0\n"
    )
    done = place.run("app.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert place.names() == ["search", "search"]


def test_a_program_that_uses_no_framework_opens_nothing(place: Place) -> None:
    place.write(MIRROR)
    assert '"modules": []' in place.run("app.py").stdout
    assert not (place.folder / "spans").exists()


def test_the_environments_own_sitecustomize_runs(place: Place) -> None:
    place.write("import builtins; builtins.told = __file__\n", "own/sitecustomize.py")
    place.write("import sitecustomize; print(told == sitecustomize.__file__)\n")
    done = place.run("app.py", PYTHONPATH=str(place.folder / "own"))
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_its_own_instrument_changes_nothing(place: Place) -> None:
    place.write("import llmops_integrations\nllmops_integrations.instrument()\n" + CHAIN)
    assert place.run("app.py").returncode == 0
    assert place.names() == ["search"]


def test_a_storage_that_cannot_be_is_told_before_the_program_runs(place: Place) -> None:
    place.write("print('ran')\n")
    place.storage = "parket:./x"
    done = place.run("app.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "parket" in done.stderr


def test_monitoring_that_fails_later_is_told_and_the_program_runs(place: Place) -> None:
    place.write("a file in the way", "spans")
    place.write(CHAIN + "print('ran')\n")
    done = place.run("app.py")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.startswith("llmops run: not monitored: ")
    assert len(done.stderr.splitlines()) == 1
