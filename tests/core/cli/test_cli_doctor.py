"""``llmops doctor`` and ``llmops recover``, and how the command line starts and fails."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops_core import Span
from llmops_core.cli.console import masked
from llmops_core.journal.state import encode_state, trouble_of
from llmops_core.journal.writer import Journal
from llmops_core.render.text import outcome_text
from llmops_core.span import OUTCOMES

Call = Callable[..., Any]


def a_span(seq: int) -> Span:
    return Span(
        trace_id="0" * 32, span_id=f"{seq:016x}", kind="tool", name="t", outcome="ok",
        start_time=1_795_000_000_000_000, end_time=1_795_000_000_000_000, writer_id="dead1", seq=seq,
    )  # fmt: skip


@pytest.fixture
def left_behind(url: str) -> Path:
    """A journal whose writer is dead: two spans, none of them stored."""
    root = Path(url.removeprefix("parquet:")) / ".journal"
    journal = Journal(root, "dead1", max_bytes=10**9)
    journal.append([a_span(1), a_span(2)])
    journal.close(remove=False)
    return root


def test_doctor_tells_versions_storage_plugins_and_settings(stored: str, llmops: Call) -> None:
    ran = llmops("doctor", "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert report["python"]["version"] == sys.version.split()[0]
    assert report["python"]["llmops-integrations"]
    assert report["storage"]["source"] == "LLMOPS_STORAGE_URL"
    assert (report["storage"]["healthy"], report["storage"]["spans"]) == (True, 6)
    assert "parquet" in report["plugins"]["builtin"]["storage"]
    assert report["settings"]["content_limit"] == {"value": 8192, "source": "default"}
    shown = llmops("doctor")
    assert "✓ answers: 6 spans" in shown.out


def test_doctor_tells_a_variable_that_nothing_reads(
    url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_STORAGE_ULR", "\x1b[31mx")
    out = llmops("doctor").out
    assert "? LLMOPS_STORAGE_ULR=\\x1b[31mx   is not a variable that is read" in out
    assert "\x1b" not in out


def test_doctor_is_unwell_where_the_storage_is(llmops: Call) -> None:
    ran = llmops("doctor", "--json", "--storage", "nosuch://me:secret@host/db")
    assert ran.code == 1
    assert json.loads(ran.out)["storage"]["healthy"] is False
    assert "secret" not in ran.out
    out = llmops("doctor", "--storage", "nosuch://me:secret@host/db").out
    assert "models      not known: the storage does not answer" in out


def test_doctor_and_recover_see_to_a_dead_writer(left_behind: Path, llmops: Call) -> None:
    (writer,) = json.loads(llmops("doctor", "--json").out)["journals"]["writers"]
    assert (writer["living"], writer["pending_spans"]) == (False, 2)
    assert "dead1: dead" in llmops("doctor").out
    assert llmops("recover").out == "Stored 2 spans of 1 dead writer.\n"
    assert json.loads(llmops("recover", "--json").out)["spans"] == 0
    assert json.loads(llmops("query", "--json", "--agg", "count").out) == [{"count": 2}]


def test_a_living_writer_is_left_alone(url: str, llmops: Call) -> None:
    journal = Journal(Path(url.removeprefix("parquet:")) / ".journal", "alive", max_bytes=10**9)
    journal.append([a_span(1)])
    try:
        (writer,) = json.loads(llmops("doctor", "--json").out)["journals"]["writers"]
        assert writer["living"]
        assert "1 writer still alive" in llmops("recover").out
    finally:
        journal.close(remove=True)


def test_doctor_tells_what_a_monitor_wrote_of_itself(url: str, llmops: Call) -> None:
    journal = Journal(Path(url.removeprefix("parquet:")) / ".journal", "alive", max_bytes=10**9)
    stats: dict[str, Any] = {
        "storage": {"state": "hung", "seconds": 12.5, "retries": 0, "last_error": None},
        "cut_off": ["lines\x1b[31m"],
        "events": {"dropped": {"overload": 7}, "content_shed": 3},
        "spans": {"dropped": {}},
        "exporters": {"lines": {"dropped": 2}},
        "journal": {"level": "journal", "gone": True, "remade": 2, "full": True, "unjournaled": 9},
        "workers": {
            "intake": {"alive": True, "restarts": 2, "stuck": True},
            "delivery": {"alive": True, "restarts": 0, "stuck": False},
        },
        "failures": {"lines.export: OSError": 5, "handler.instrument crewai: ImportError": 1},
    }
    try:
        journal.replace_state(encode_state(trouble_of(stats)))
        (writer,) = json.loads(llmops("doctor", "--json").out)["journals"]["writers"]
        assert writer["trouble"]["cut_off"] == ["lines\x1b[31m"]
        out = llmops("doctor").out
        for line in (
            "✗ storage hung for 12.5 s; its spans wait in the journal",
            "✗ plugin lines\\x1b[31m is cut off; restart the program to try it again",
            "✗ events dropped: 7 (overload)",
            "✗ lines dropped: 2 (exporter)",
            "✗ events without their content: 3 (overload)",
            "✗ its journal's folder is gone and cannot be made again; spans stay in memory",
            "✗ its journal's folder was gone and was made again: 2 times",
            "✗ its journal is full; spans stay in memory",
            "✗ spans that never were in the journal: 9",
            "✗ thread intake began anew 2 times; it does not move",
            "? lines.export: OSError: 5 times",
            "✗ handler.instrument crewai: ImportError: 1 times",
        ):
            assert line in out
        for odd in (b"", b"\xff", b"[]", b'{"storage": 5, "cut_off": {}, "journal": [1]}'):
            journal.replace_state(odd)
            assert llmops("doctor").code == 0
    finally:
        journal.close(remove=True)
    assert not journal.folder.exists()


def test_doctor_says_why_there_can_be_no_journal(url: str, llmops: Call) -> None:
    root = Path(url.removeprefix("parquet:")) / ".journal"
    assert json.loads(llmops("doctor", "--json").out)["journals"]["problem"] is None
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file")
    problem = f"{root} is no folder: finished spans are kept in memory only"
    assert json.loads(llmops("doctor", "--json").out)["journals"]["problem"] == problem
    assert f"✗ {problem}" in llmops("doctor").out


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmops_core.cli", *args],
        capture_output=True, text=True, encoding="utf-8", check=False, env={**os.environ, **env},
    )  # fmt: skip


def test_help_imports_no_framework_no_arrow_and_no_database() -> None:
    heavy = "pyarrow", "duckdb", "langchain_core", "langgraph", "crewai"
    code = (
        "import sys; sys.argv=['llmops', '--help']\n"
        "from llmops_core.cli import main\n"
        "try: main()\n"
        f"finally: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    for command in ("demo", "traces", "trace", "query", "doctor", "recover"):
        assert command in done.stdout


def test_help_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The processor's seconds: those of the clock depend on what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5  # 0.4 alone


def test_a_wrong_option_exits_with_2_and_version_is_told() -> None:
    assert run("traces", "--nope").returncode == 2
    assert run("--version").stdout.startswith("llmops ")


def test_a_pipe_that_is_not_utf8_gets_no_traceback(stored: str) -> None:
    done = run("trace", "019ab3f2c10100000000000000000000", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "workflow desk" in done.stdout


def test_each_mark_has_a_likeness_of_its_own_where_there_is_no_utf8(stored: str) -> None:
    out = run("traces", PYTHONIOENCODING="ascii").stdout
    for shown in ("+ ok", "x error", "~ interrupted", "o open", "100 > 20"):
        assert shown in out
    marks = [outcome_text(outcome)[0] for outcome in OUTCOMES]
    spelled = {mark.encode("ascii", "llmops")[:1] for mark in marks if "cancelled" not in mark}
    assert len(spelled) == len(marks) - 1, "cancelled and abandoned share one, as elsewhere"


def test_a_terminal_that_has_the_marks_gets_them(stored: str) -> None:
    assert "✓ ok" in run("traces", PYTHONIOENCODING="utf-8").stdout


#: Enough lines that any pipe or buffer is written to before the end.
COMMANDS = [
    "doctor --without hooks",
    "traces",
    "query",
    "query --json",
    "trace 019ab3f2c101",
    "recover",
    "--help",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_leaves_ends_every_command_as_it_ends_ls(stored: str, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "llmops_core.cli", *command.split()],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, "Traceback" in done.stderr) == (141, False)
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_and_exit_code_2(stored: str, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "llmops_core.cli", *command.split()],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_without_any_output_a_command_still_runs(stored: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m llmops_core.cli traces >&- 2>&-", shell=True, check=False
    )
    assert done.returncode == 0


def test_doctor_says_that_no_variable_is_set(
    url: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("LLMOPS_")]:
        monkeypatch.delenv(name)
    lines = llmops("doctor", "--storage", url).out.splitlines()
    assert lines[-2] == "variables   none that begins with LLMOPS_"


@pytest.mark.parametrize("command", ["traces", "query", "recover", "trace 00", "doctor"])
def test_a_file_given_as_the_folder_is_told_as_one(
    tmp_path: Path, llmops: Call, command: str
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("")
    ran = llmops(*command.split(), "--storage", f"parquet:{path}")
    assert ran.code == (1 if command == "doctor" else 2)
    assert f"{str(path)!r} is a file" in ran.out + ran.err


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:se:cr@et@host/db", "mysql://h/db?user=a&password=secret", "x://:secret@h"],
)
def test_a_password_is_hidden_wherever_it_stands(url: str) -> None:
    assert "***" in masked(url)
    assert not [part for part in ("secret", "se:", "cr@", "et@") if part in masked(url)]
