"""Importing is cheap and quiet: little CPU time, nothing heavy, no thread, no file, no socket."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

#: The promise of the design, in milliseconds of CPU time. The one timing gate of the suite. On a machine
#: on which milliseconds are no measure: twice what these of Python's own and msgspec, which it stands on,
#: take in the same minute.
BUDGET_MS = 150
STANDS_ON = "asyncio, importlib.metadata, inspect, logging, msgspec, uuid"
BYTECODE = tempfile.mkdtemp(prefix="llmops-bytecode-")
atexit.register(shutil.rmtree, BYTECODE, ignore_errors=True)
HEAVY = ("pyarrow", "duckdb", "pydantic_settings", "rich", "typer")

# What the interpreter itself opens to import (source, bytecode, libraries) is not counted.
PROBE = """
import importlib, json, re, sys, threading, time
prepare, target, watched = sys.argv[1:]
if prepare:
    importlib.import_module(prepare)
seen = []
def watch(event, args):
    if event.startswith(("socket.", "subprocess.", "os.fork")):
        seen.append(event)
    elif event == "open" and not re.search(r"[.](py|so|pyc)([.]\\d+)?$", str(args[0])):
        seen.append(f"open {args[0]}")
if watched:  # the hook itself costs time
    sys.addaudithook(watch)
before_threads, before = threading.active_count(), set(sys.modules)
start = time.process_time()
for name in target.split(", "):
    importlib.import_module(name)
cpu_ms = (time.process_time() - start) * 1000
print(json.dumps({
    "cpu_ms": cpu_ms,
    "threads": threading.active_count() - before_threads,
    "seen": seen,
    "modules": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
}))
"""

# What every program that uses the framework has imported before it makes a handler comes first.
TARGETS = [
    ("", "llmops_core"),
    ("langchain_core.language_models.chat_models", "llmops_integrations.langchain"),
]


def probe(prepare: str, target: str, *, watched: bool = False) -> dict[str, Any]:
    # With bytecode, as an installed package has it; the variable may forbid writing it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = BYTECODE
    done = subprocess.run(
        [sys.executable, "-c", PROBE, prepare, target, "yes" if watched else ""],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(params=TARGETS, ids=[target for _, target in TARGETS])
def imported(request: pytest.FixtureRequest) -> tuple[str, str]:
    prepare, target = request.param
    if prepare:
        pytest.importorskip(prepare.partition(".")[0])
    probe(prepare, target)  # writes the bytecode, so that what follows is measured warm
    return prepare, target


def test_importing_stays_within_its_budget(imported: tuple[str, str]) -> None:
    # Noise only adds: another process that shares a core makes CPU time longer, never shorter.
    probe("", STANDS_ON)
    pairs = [(probe(*imported)["cpu_ms"], probe("", STANDS_ON)["cpu_ms"]) for _ in range(7)]
    spent, below = (min(column) for column in zip(*pairs, strict=True))
    told = f"{imported[1]} took {spent:.0f} ms of CPU, what it stands on {below:.0f}"
    assert spent <= max(BUDGET_MS, 2 * below), told


def test_importing_loads_nothing_heavy(imported: tuple[str, str]) -> None:
    assert not set(probe(*imported)["modules"]) & set(HEAVY)


def test_importing_starts_no_thread_and_opens_nothing(imported: tuple[str, str]) -> None:
    report = probe(*imported, watched=True)
    assert report["threads"] == 0
    assert report["seen"] == []


@pytest.mark.parametrize(
    ("code", "shows"),
    [
        ("import threading as t\nt.Thread(target=t.Event().wait, daemon=True).start()", "threads"),
        ("import socket; socket.socket()", "seen"),
        ("open('written', 'w').close()", "seen"),
    ],
    ids=["thread", "socket", "file"],
)
def test_the_probe_sees_what_it_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, shows: str
) -> None:
    (tmp_path / "a_loud_module.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert probe("", "a_loud_module", watched=True)[shows]
