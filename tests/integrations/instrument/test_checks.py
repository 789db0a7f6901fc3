"""What ``llmops doctor`` says of frameworks, of what would be hooked, and of other tools."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmops_integrations.checks import frameworks as frameworks_module
from llmops_integrations.checks import hooks, telemetry, vendors
from llmops_integrations.checks.frameworks import OLDEST_TESTED, Frameworks, is_older
from llmops_integrations.checks.vendors import VENDORS

#: A machine that runs other tests may take long to import the frameworks.
PATIENCE_SECONDS = 280
TOX = Path(__file__).parents[3] / "tox.ini"
INSTALLED = [n for n, p in (("langchain", "langchain-core"), ("langgraph", "langgraph"), ("crewai", "crewai"))
             if frameworks_module.version_of(p)]  # fmt: skip


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Say what is installed, instead of the environment."""
    versions: dict[str, str] = {}
    for module in (frameworks_module, telemetry, vendors):
        monkeypatch.setattr(module, "version_of", versions.get)
    return versions


def told(check: Any) -> list[tuple[str, str]]:
    return [(found.level, found.text) for found in check.check()]


def test_the_oldest_releases_are_those_that_tox_tests() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string(TOX.read_text(encoding="utf-8"))
    deps = "\n".join(section["deps"] for _, section in tox.items() if "deps" in section)
    pinned = dict(re.findall(r"^oldest: *([\w-]+)==([\d.]+)$", deps, re.MULTILINE))
    assert {name: pinned[name] for name in OLDEST_TESTED} == OLDEST_TESTED


def test_a_release_older_than_tested_is_noted(installed: dict[str, str]) -> None:
    installed |= {"langchain-core": OLDEST_TESTED["langchain-core"], "langgraph": "1.2.5rc1.dev0"}
    installed["crewai"] = "1.13.0"
    assert told(Frameworks()) == [
        ("ok", f"langchain-core {installed['langchain-core']}"),
        ("ok", "langgraph 1.2.5rc1.dev0"),
        (
            "note",
            f"crewai 1.13.0 is older than {OLDEST_TESTED['crewai']}, the oldest that is tested",
        ),
    ]
    installed.clear()
    assert {text for _, text in told(Frameworks())} == {
        f"{n} is not installed" for n in OLDEST_TESTED
    }


def test_releases_are_compared_as_numbers() -> None:
    assert is_older("1.9", "1.15.18")
    assert not is_older("1.15.30", "1.15.18")
    assert not is_older("2", "1.15")
    assert is_older("unknown", "0.1")


def test_what_is_installed_is_really_hooked_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every framework of this environment, in a process of its own."""
    monkeypatch.setattr(hooks, "_SECONDS", PATIENCE_SECONDS)
    found = list(hooks.Hooks().check())
    assert [f.level for f in found] == ["ok"] * len(found), found
    assert [f.facts["framework"] for f in found] == INSTALLED
    assert all(f.facts["recorded"] and f.facts["hook"].startswith("attached: ") for f in found)


STATES = {
    "moved": ({"hook": "failed: LookupError: no x", "recorded": True, "error": None},
              "langgraph: failed: LookupError: no x"),
    "silent": ({"hook": "attached: a hook", "recorded": False, "error": None},
               "langgraph: attached: a hook, and a run of it was not recorded"),
    "broken": ({"hook": "waits", "recorded": False, "error": "ImportError: no y"},
               "langgraph cannot be imported: ImportError: no y"),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_an_upgrade_that_moves_what_is_hooked_is_a_problem(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, said = STATES[state]
    monkeypatch.setattr(hooks, "_tried", lambda folder: {"langgraph": seen})
    assert told(hooks.Hooks()) == [("problem", said)]


def test_a_framework_that_lacks_what_is_hooked_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release of LangGraph without the functions that are wrapped, made with a site hook."""
    pytest.importorskip("langgraph")
    (tmp_path / "sitecustomize.py").write_text(
        "from llmops_integrations.imports import when_imported\n"
        "def cut(module):\n"
        "    del module.get_sync_graph_callback_manager_for_config\n"
        "when_imported('langgraph.pregel.main', cut)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(hooks, "_SECONDS", PATIENCE_SECONDS)
    found = {f.facts["framework"]: f for f in hooks.Hooks().check()}
    assert found["langgraph"].level == "problem"
    assert found["langchain"].level == "ok"


def test_a_trial_that_dies_says_its_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_TRIAL", "raise SystemExit('no memory')")
    assert told(hooks.Hooks()) == [("problem", "the trial ended with 1: no memory")]
    monkeypatch.setattr(hooks, "_TRIAL", "import threading; threading.Event().wait()")
    monkeypatch.setattr(hooks, "_SECONDS", 0.5)
    assert told(hooks.Hooks()) == [
        ("note", "not known: the frameworks' imports took longer than 0.5 s")
    ]


def test_the_trial_sends_stores_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "CREWAI_TRACING_ENABLED"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("LLMOPS_STORAGE_URL", f"parquet:{tmp_path / 'spans'}")
    monkeypatch.setenv("HOME", str(tmp_path))
    seen: dict[str, str] = {}
    run = subprocess.run

    def spy(*args: Any, env: dict[str, str], **more: Any) -> Any:
        seen.update(env)
        return run(*args, env=env, **more)

    monkeypatch.setattr(hooks.subprocess, "run", spy)
    list(hooks.Hooks().check())
    assert list(tmp_path.iterdir()) == []
    assert {
        seen[n] for n in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "CREWAI_TRACING_ENABLED")
    } == {"false"}
    assert not [name for name in seen if name.startswith("LLMOPS_")]


def test_other_tools_beside_us_are_named_without_their_keys(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for vendor in VENDORS:
        for name in (*vendor.switches, *vendor.addresses):
            monkeypatch.delenv(name, raising=False)
    assert told(vendors.Vendors()) == [("ok", "none is installed")]
    installed |= {"langfuse": "5.0.4", "langsmith": "0.15.1", "opentelemetry-sdk": "1.45.2"}
    installed["openinference-instrumentation-langchain"] = "0.1.80"
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-hunter2")
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    assert told(vendors.Vendors()) == [
        ("ok", "OpenInference: openinference-instrumentation-langchain 0.1.80"),
        ("ok", "Langfuse: langfuse 5.0.4; LANGFUSE_SECRET_KEY set"),
        ("note", "LangSmith: langsmith 0.15.1; on (LANGSMITH_TRACING)"),
        ("ok", "OpenTelemetry SDK: opentelemetry-sdk 1.45.2"),
    ]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (None, "", "is on: set CREWAI_DISABLE_TELEMETRY=true to turn it off"),
        ("CREWAI_DISABLE_TELEMETRY", "false", "is on: set CREWAI_DISABLE_TELEMETRY=true"),
        ("CREWAI_DISABLE_TELEMETRY", "True", "is off (CREWAI_DISABLE_TELEMETRY)"),
        ("CREWAI_DISABLE_TRACKING", "1", "is off (CREWAI_DISABLE_TRACKING)"),
        ("OTEL_SDK_DISABLED", "true", "is off (OTEL_SDK_DISABLED)"),
    ],
)
def test_whether_crewai_sends_telemetry_of_its_own_is_said(
    variable: str | None,
    value: str,
    said: str,
    installed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in telemetry.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, value)
    assert "no framework with telemetry" in told(telemetry.Telemetry())[0][1]
    installed["crewai"] = "1.15.30"
    ((level, text),) = told(telemetry.Telemetry())
    assert said in text
    assert level == ("note" if "is on" in said else "ok")


def test_the_doctor_tells_what_llmops_run_would_hook(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "llmops_core.cli", "doctor", "--json"],
        env={**os.environ, "LLMOPS_STORAGE_URL": f"parquet:{tmp_path / 'spans'}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)["checks"]["hooks"]
    assert [f["facts"]["framework"] for f in found] == INSTALLED


def test_the_checks_import_no_framework() -> None:
    code = (
        "import sys, llmops_integrations.checks\n"
        "print([m for m in ('langchain_core', 'langgraph', 'crewai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
