"""Errors that a user can meet at set-up. Each says what was found, what was expected, what to do.

After set-up nothing of ours is raised into the user's program but a breaker that the user enabled:
run-time failures are logged once and counted (see :mod:`llmops_core.failures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "BreakerTripped",
    "ConfigError",
    "LLMOpsError",
    "MissingDependency",
    "MonitorClosed",
    "PermanentError",
    "PluginError",
    "QueryError",
    "RetryableError",
    "StorageError",
    "UnknownPart",
    "UnknownStorage",
    "plugin_errors",
]


class LLMOpsError(Exception):
    """Base of every error that this project raises."""

    def __init__(self, found: str, expected: str = "", do: str = "") -> None:
        self.found, self.expected, self.do = found, expected, do
        super().__init__(" ".join([*map(_sentence, filter(None, (found, expected, do)))]))


def _sentence(text: str) -> str:
    """Return *text* as a sentence; a setting, a URL or a command keeps the case it is typed in."""
    first = text.split(maxsplit=1)[0].rstrip(",.;:") if text.strip() else text
    is_word = first.isalpha() and first not in ("llmops", "pip", "python")
    start = text[:1].upper() if is_word else text[:1]
    return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


class BreakerTripped(LLMOpsError, RuntimeError):
    """A run was stopped by a limit that you set (``Monitor(breakers=...)``). The one error of ours
    that is raised while your program runs.

    ``scope`` is ``run``, ``session``, ``user`` or ``project``; ``limit`` what was limited (``tokens``,
    ``calls``, ``seconds``, ``ping_pong``, ``fan_out``), ``allowed`` how much, and ``used`` what was
    found. Whatever the same run starts afterwards is refused with it too, so that catching it in the
    middle of a run does not set the run going again.
    """

    __module__ = "llmops_core"  # its name in spans is the one that it is caught by

    scope: str = "run"
    limit: str = ""
    allowed: float = 0
    used: float = 0


class ConfigError(LLMOpsError, ValueError):
    """A setting has a value that cannot be used."""


class UnknownStorage(ConfigError):
    """No storage is registered for a URL's scheme."""


class UnknownPart(ConfigError):
    """No collector or exporter is registered under a name."""


class PluginError(LLMOpsError):
    """A plugin cannot be loaded or registered."""


@contextmanager
def plugin_errors(what: str) -> Iterator[None]:
    """Turn what a plugin raises on its caller's thread into a ``PluginError`` that names it.

    Its ``sys.exit`` too: whoever asked must not end with half an answer. An interrupt may be the
    user's own.
    """
    try:
        yield
    except (LLMOpsError, KeyboardInterrupt):
        raise
    except BaseException as error:
        failed = f"{what} failed with {type(error).__name__}"
        raise PluginError(failed, do="leave it out, or repair it") from error


class MissingDependency(LLMOpsError, ImportError):
    """An optional package is needed and not installed."""


class QueryError(LLMOpsError, ValueError):
    """A query names an unknown column or operator, or a value of the wrong type."""


class StorageError(LLMOpsError):
    """A storage cannot be opened, read or written."""


class RetryableError(StorageError):
    """A storage cannot do now what it may do later: unreachable, busy, full, not permitted.

    Raised by ``write``: the batch stays in the journal and is tried again. So is a batch whose
    write raises anything else but ``PermanentError``.
    """


class PermanentError(StorageError):
    """A storage refuses what is in a batch, however often it is tried. Nothing of it was stored.

    The batch is cut until the span at fault is alone; that one goes into the quarantine, the others
    are stored. *place* is its place in the batch, where the storage knows it: then one cut is enough.
    """

    def __init__(
        self, found: str, expected: str = "", do: str = "", *, place: int | None = None
    ) -> None:
        super().__init__(found, expected, do)
        self.place = place


class MonitorClosed(LLMOpsError, RuntimeError):
    """The monitor was closed; it takes no more queries."""
