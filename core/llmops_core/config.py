"""Settings of a monitor, checked when they are made, and where they come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from llmops_core.errors import ConfigError

__all__ = [
    "DEFAULT_STORAGE_URL",
    "Compact",
    "Durability",
    "Overload",
    "Settings",
    "make_settings",
    "state_dir",
    "storage_url",
]

DEFAULT_STORAGE_URL: Final = "parquet:./llmops_data"
MEGABYTE: Final = 1024 * 1024
Durability = Literal["journal", "memory"]
Overload = Literal["drop", "block"]
Compact = Literal["idle", "off"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a monitor works. Every value is checked at set-up; the defaults suit an application."""

    project: str | None = None
    service: str | None = None
    environment: str | None = None
    app_version: str | None = None
    #: ``journal`` survives the death of the process; ``memory`` does not.
    durability: Durability = "journal"
    #: Text kept of one input or output, in characters.
    content_limit: int = 8192
    #: Events and bytes that may wait for the intake thread before some are dropped.
    queue_events: int = 50_000
    queue_bytes: int = 64 * MEGABYTE
    #: When they are exceeded: ``drop``, content first, then ordinary runs before roots and errors;
    #: or ``block`` the caller until there is room, but never the thread of an event loop.
    overload: Overload = "drop"
    #: What ``block`` may take of one call; then it is as ``drop``.
    block_seconds: float = 1.0
    #: Bytes of finished spans kept in memory while the storage is behind.
    backlog_bytes: int = 16 * MEGABYTE
    #: Bytes of one journal; beyond them new spans are kept in memory only.
    journal_bytes: int = 1024 * MEGABYTE
    #: Spans and seconds of a stored batch; None leaves it to the storage.
    batch_size: int | None = None
    flush_interval_seconds: float | None = None
    #: ``idle`` merges the small files of closed days while nothing is written; ``off`` never does.
    compact: Compact = "idle"
    #: Spans of one trace that are stored; what comes after is counted.
    trace_spans: int = 10_000
    #: Spans that may be open at once; the idlest trees are closed beyond it.
    open_spans: int = 100_000
    #: A tree without any event for so long is closed as incomplete.
    idle_seconds: float = 3600.0
    #: How long closing and exiting may take.
    shutdown_seconds: float = 2.0
    #: Whether roots join the trace of OpenTelemetry's span around them, as its children.
    join_opentelemetry: bool = False
    #: Whether a set-up that cannot work raises; else it is logged once, and nothing is recorded.
    strict: bool = True

    def __post_init__(self) -> None:
        for name in ("project", "service", "environment", "app_version"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name}={value!r}", "expected a text or None")
        self._check_choice("durability", get_args(Durability))
        self._check_choice("overload", get_args(Overload))
        self._check_choice("compact", get_args(Compact))
        self._check("content_limit", int, 0, MEGABYTE)
        for name in ("queue_events", "open_spans", "trace_spans"):
            self._check(name, int, 1, 100_000_000)
        for name in ("queue_bytes", "backlog_bytes", "journal_bytes"):
            self._check(name, int, 64 * 1024, 2**50)
        if self.batch_size is not None:
            self._check("batch_size", int, 1, 1_000_000)
        if self.flush_interval_seconds is not None:
            self._check("flush_interval_seconds", float, 0.01, 86_400)
        self._check("block_seconds", float, 0.001, 60)
        self._check("idle_seconds", float, 1, 31 * 86_400)
        self._check("shutdown_seconds", float, 0, 3600)
        for name in ("join_opentelemetry", "strict"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r}", "expected True or False")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigError(
                f"{name}={value!r}",
                "expected one of " + ", ".join(choices),
                f"write {name}={choices[0]!r}",
            )

    def _check(self, name: str, kind: type, low: float, high: float) -> None:
        value: Any = getattr(self, name)
        accepted = (int, float) if kind is float else (int,)
        if isinstance(value, bool) or not isinstance(value, accepted) or not low <= value <= high:
            what = "a number" if kind is float else "a whole number"
            raise ConfigError(f"{name}={value!r}", f"expected {what} from {low:,} to {high:,}")


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Make settings from keyword arguments, then ``LLMOPS_*`` variables, a TOML file, defaults."""
    from llmops_core.sources import resolve_settings

    return resolve_settings(values)[0]


def storage_url() -> str:
    """Return the storage where the code names none: of the environment, a file, a folder here."""
    from llmops_core.sources import default_storage

    url: str = default_storage().value
    return url


def state_dir() -> Path:
    """Return the folder for keys and journals: ``LLMOPS_STATE_DIR``, else the platform's own."""
    configured = os.environ.get("LLMOPS_STATE_DIR")
    if configured:
        return Path(configured)
    import platformdirs

    return Path(platformdirs.user_state_path("llmops", appauthor=False))
