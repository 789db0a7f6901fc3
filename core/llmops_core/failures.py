"""The one place that run-time failures go to: counted always, logged once for each distinct one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from threading import RLock
from typing import Final

__all__ = ["Failures", "PluginLeftError"]

logger: Final = logging.getLogger("llmops")

#: Distinct failures that are remembered; what comes after counts under "other".
MAX_DISTINCT: Final = 256


class PluginLeftError(RuntimeError):
    """Carries a plugin's ``SystemExit``, or the like, as an ordinary error; its cause is that."""


Listener = Callable[[str, str, BaseException], None]


class Failures:
    """Counts failures by who, where and what. Safe from any thread; never raises."""

    def __init__(self) -> None:
        # Re-entrant: a log handler of the application may call back into a monitored function.
        self._lock = RLock()
        self._counts: dict[str, int] = {}
        self._listener: Listener | None = None

    def listen(self, listener: Listener) -> None:
        """Call ``listener(plugin, where, error)`` at each failure, on the thread where it happens.

        There is one listener; it must not block, raise, or run foreign code.
        """
        self._listener = listener

    def after_fork(self) -> None:
        """Take a new lock: another thread may have held the old one when the process forked."""
        self._lock = RLock()
        self._listener = None  # it works on a thread that only the parent has

    def report(self, plugin: str, where: str, error: BaseException, *, quiet: bool = False) -> None:
        """Count a swallowed failure and log the first of its sort; *quiet* where the caller logs."""
        # Only ours is unwrapped: asyncio raises its TimeoutError from a CancelledError.
        if isinstance(error, PluginLeftError) and error.__cause__ is not None:
            error = error.__cause__
        key = f"{plugin}.{where}: {type(error).__name__}"
        with self._lock:
            if key not in self._counts and len(self._counts) >= MAX_DISTINCT:
                key = "other"
            count = self._counts.get(key, 0) + 1
            self._counts[key] = count
        if count == 1 and not quiet:
            _log(plugin, where, error)
        if self._listener is not None:
            self._listener(plugin, where, error)

    def left_behind(self, plugin: str) -> Callable[[BaseException], None]:
        """Return what counts a plugin's failures that nobody waits for, without a line of log."""
        return lambda error: self.report(plugin, "left_behind", error, quiet=True)

    def counts(self) -> dict[str, int]:
        """Return failures so far, by ``plugin.where: type``."""
        with self._lock:
            return dict(self._counts)


def _log(plugin: str, where: str, error: BaseException) -> None:
    # Type and place only: the text of an error may hold a prompt, a key, or forged log lines.
    # Suppressed: the application's own log handler may fail; counting went well.
    with contextlib.suppress(Exception):
        logger.warning(
            "%s failed in %s with %s; counted, not raised (more of this sort are only counted)",
            plugin,
            where,
            type(error).__name__,
            exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
        )
