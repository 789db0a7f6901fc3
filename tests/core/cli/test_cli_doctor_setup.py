"""``llmops doctor``: plugins and their checks, problems, models, secrets, and where things come from."""

from __future__ import annotations

import json
import re
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops_core import Breakers, BreakerTripped, Monitor, Span, monitor_llm
from llmops_core.cli import doctor_setup
from llmops_core.journal.quarantine import Quarantine

Call = Callable[..., Any]

PLUGIN = """
    from llmops_core import Finding, hookimpl

    class Licence:
        def __init__(self, argument):
            pass

        def check(self):
            yield Finding("the licence is valid")
            yield Finding("it ends soon \x1b[31m", "note", {"days": 3})
            BODY

    class Quiet:
        async def export(self, batch):
            pass

        async def close(self):
            pass

    @hookimpl
    def llmops_register(registry):
        registry.check("licence", Licence)
        registry.exporter("quiet", lambda argument: Quiet())

    @hookimpl
    def llmops_spans_stored(batch):
        pass
"""


@pytest.fixture
def plugin(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package whose entry point ``quiet`` has a check; *body* is the end of that."""

    def install(body: str = "") -> None:
        folder = tmp_path / "site"
        info = folder / "quiet_plugin-2.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quiet-plugin\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text("[llmops]\nquiet = quiet_plugin\n")
        text = textwrap.dedent(PLUGIN).replace("BODY", body or "pass")
        (folder / "quiet_plugin.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "quiet_plugin", raising=False)

    return install


def found(ran: Any, check: str) -> list[tuple[str, str]]:
    return [(f["level"], f["text"]) for f in json.loads(ran.out)["checks"][check]]


def test_a_plugin_that_is_named_is_told_with_its_version_hooks_and_parts(
    plugin: Any, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin()
    assert json.loads(llmops("doctor", "--json").out)["plugins"]["enabled"] == []
    monkeypatch.setenv("LLMOPS_EXPORTERS", "quiet:token=abc")
    ran = llmops("doctor")
    shown = "enabled: quiet (quiet-plugin 2.5): llmops_register, llmops_spans_stored, check licence"
    assert shown in ran.out
    assert "abc" not in ran.out + llmops("doctor", "--json").out
    assert "exporters = ['quiet:token=***']   (from LLMOPS_EXPORTERS)" in ran.out


def test_the_checks_of_a_plugin_are_run_as_the_built_in_ones(
    plugin: Any, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin()
    monkeypatch.setenv("LLMOPS_PLUGINS", "quiet")
    ran = llmops("doctor", "--json")
    assert ran.code == 0
    assert found(ran, "licence") == [
        ("ok", "the licence is valid"),
        ("note", "it ends soon \x1b[31m"),
    ]
    assert set(json.loads(ran.out)["checks"]) == {"frameworks", "vendors", "telemetry", "licence"}
    out = llmops("doctor").out
    assert "licence     the licence is valid" in out
    assert "            ? it ends soon \\x1b[31m" in out
    assert "licence" not in llmops("doctor", "--without", "licence").out.split("plugins")[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("yield Finding('it has ended', 'problem')", "it has ended"),
        ("raise OSError('no route')", "the check failed: OSError: no route"),
        ("import sys; sys.exit(3)", "the check failed: SystemExit: 3"),
        ("yield 'a text'", "the check failed: TypeError: a check returned a str, not a Finding"),
        ("import threading; threading.Event().wait()", "no answer in 0.5 s"),
    ],
)
def test_a_check_that_finds_a_problem_or_fails_makes_the_doctor_unwell(
    body: str, said: str, plugin: Any, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(body)
    monkeypatch.setenv("LLMOPS_PLUGINS", "quiet")
    if "Event" in body:
        monkeypatch.setattr(doctor_setup, "_CHECK_SECONDS", 0.5)
        ran = llmops(
            "doctor",
            "--json",
            "--without",
            "frameworks",
            "--without",
            "vendors",
            "--without",
            "telemetry",
        )
    else:
        ran = llmops("doctor", "--json")
    assert ran.code == 1
    assert found(ran, "licence")[-1] == ("problem", said)
    assert f"licence: {said}" in json.loads(ran.out)["problems"]


def test_a_part_that_no_plugin_has_is_told_with_who_names_it(
    url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_EXPORTERS", "consol")
    ran = llmops("doctor")
    assert ran.code == 1
    assert re.search(r"✗ (?i:unknown) exporter 'consol'", ran.out)
    assert "(exporters from LLMOPS_EXPORTERS)" in ran.out
    assert ran.out.splitlines()[-1] == "found       1 problem: look for ✗"


def test_a_check_to_leave_out_that_does_not_exist_is_refused(url: str, llmops: Call) -> None:
    ran = llmops("doctor", "--without", "hoks")
    assert ran.code == 2
    assert "frameworks, hooks, vendors, telemetry" in ran.err


def test_a_setting_that_is_wrong_is_a_problem(
    url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_BATCH_SIZE", "none")
    ran = llmops("doctor")
    assert ran.code == 1
    assert "✗ error = LLMOPS_BATCH_SIZE='none'" in ran.out


def test_breakers_of_the_environment_are_told_and_known_as_variables(
    url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "breakers    off" in llmops("doctor").out
    monkeypatch.setenv("LLMOPS_BREAKERS_CALLS", "7")
    out = llmops("doctor").out
    assert "breakers    calls = 7   (from LLMOPS_BREAKERS_CALLS)" in out
    assert "? LLMOPS_BREAKERS_CALLS" not in out


def test_no_secret_is_shown(url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "LLMOPS_STORAGE_URL": "postgresql://me:hunter2@h/db?sslpassword=hunter2",
        "LLMOPS_CONNECTION_STRING": "postgresql://me:hunter2@h/db",
        "LLMOPS_API_KEY": "hunter2",
        "LLMOPS_COLLECTORS": "nosuch:api_key=hunter2",
        "LANGSMITH_API_KEY": "hunter2",
        "LANGFUSE_SECRET_KEY": "hunter2",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for args in (["doctor"], ["doctor", "--json"]):
        ran = llmops(*args)
        assert "hunter2" not in ran.out + ran.err
        assert ran.code == 1


def test_models_are_told_with_what_they_lack(stored: str, llmops: Call) -> None:
    report = json.loads(llmops("doctor", "--json").out)
    assert [(m["model"], m["calls"], m["without_usage"]) for m in report["models"]] == [
        ("m-1", 2, 2),
    ]
    out = llmops("doctor").out
    assert "models      m-1: 2 calls, 2 of them without usage" in out
    assert "all of them are unpriced: this release has no prices" in out


def test_what_is_in_quarantine_is_a_problem(url: str, llmops: Call) -> None:
    root = Path(url.removeprefix("parquet:")) / ".journal"
    span = Span(
        trace_id="0" * 32, span_id="1" * 16, kind="tool", name="t", outcome="ok",
        start_time=1, end_time=1, writer_id="w", seq=1,
    )  # fmt: skip
    Quarantine(root).add(span, ValueError("no"))
    ran = llmops("doctor")
    assert ran.code == 1
    assert "✗ 1 span in quarantine: see llmops quarantine list" in ran.out


def test_runs_that_a_breaker_stopped_are_told_of_a_running_program(url: str, llmops: Call) -> None:
    with Monitor(storage=url, breakers=Breakers(calls=1)) as monitor:

        @monitor_llm("ask", "llm", monitor=monitor)
        def ask() -> None:
            pass

        @monitor_llm(monitor=monitor)
        def chat() -> None:
            ask()
            ask()

        with pytest.raises(BreakerTripped):
            chat()
        monitor.flush()
        told = threading.Event()
        for _ in range(200):
            out = llmops("doctor", "--without", "frameworks").out
            if "runs stopped by the breaker calls: 1" in out:
                return
            told.wait(0.05)
    pytest.fail(out)


def test_what_is_captured_is_said_and_where_its_limit_comes_from(
    url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_CONTENT_LIMIT", "100")
    out = llmops("doctor").out
    assert "up to 100 characters of each: content_limit (from LLMOPS_CONTENT_LIMIT)" in out
    assert "? nothing is redacted: this release has no redactor" in out
