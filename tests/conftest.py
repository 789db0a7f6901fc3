"""In continuous integration (``LLMOPS_CI``) a skipped test fails, unless it is listed here."""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from typing import Any, Final

import pytest

from clickhouse_server import clickhouse_server, clickhouse_url
from object_store import s3_server, s3_url
from servers import (
    mysql_empty,
    mysql_server,
    mysql_table,
    mysql_url,
    postgres_server,
    postgres_url,
)

__all__ = [  # fixtures
    "clickhouse_server",
    "clickhouse_url",
    "mysql_empty",
    "mysql_server",
    "mysql_table",
    "mysql_url",
    "postgres_server",
    "postgres_url",
    "s3_server",
    "s3_url",
]

# Keys and journals of the tests lie in a folder of their own, never in the user's.
os.environ["LLMOPS_STATE_DIR"] = tempfile.mkdtemp(prefix="llmops-tests-")
atexit.register(shutil.rmtree, os.environ["LLMOPS_STATE_DIR"], ignore_errors=True)

_ENVIRONMENT: Final = os.environ.get("TOX_ENV_NAME", "")
_BARE: Final = _ENVIRONMENT.startswith("bare")

#: (pattern of the skip's reason, whether it may happen here, why it may)
ALLOWED_SKIPS: Final = (
    (
        r"could not import '(langchain_core|langchain|langgraph|crewai)[.\w]*'",
        _BARE and importlib.util.find_spec("langchain_core") is None,
        "the bare environments show that the core works where no framework is installed",
    ),
    (
        r"could not import 'crewai[.\w]*'",
        not _ENVIRONMENT.startswith("crewai") and importlib.util.find_spec("crewai") is None,
        "CrewAI has environments of its own, crewai-oldest and crewai-latest, which CI runs",
    ),
    (
        r"could not import '(openinference|langfuse)[.\w]*'",
        _ENVIRONMENT != "crewai-latest" and importlib.util.find_spec("openinference") is None,
        "other tools are installed beside all frameworks, in crewai-latest, which CI runs",
    ),
)

_seen: list[str] = []


def _why_allowed(reason: str) -> str | None:
    for pattern, here, why in ALLOWED_SKIPS:
        if here and re.search(pattern, reason):
            return why
    return None


def _judge(report: Any) -> None:
    """Turn a skip that nobody allowed into a failure; keep an allowed one for the summary."""
    if "LLMOPS_CI" not in os.environ or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    why = _why_allowed(reason)
    if why is None:
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here: {reason} (see ALLOWED_SKIPS in {__file__})"
    else:
        _seen.append(f"{report.nodeid}: {reason}; allowed: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in _seen:
        terminalreporter.write_line(f"allowed skip: {line}")
