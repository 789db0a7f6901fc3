"""The monitor that is used where none is named."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from llmops_core import holding
from llmops_core.monitor import Monitor

__all__ = ["current_default", "default_monitor", "follow_default_monitor", "replace_default"]

_default: Monitor | None = None
_followers: list[Callable[[Monitor], object]] = []
_lock = threading.RLock()


def default_monitor() -> Monitor:
    """Return the monitor that is used where none is named, opening it at first.

    Its storage is ``LLMOPS_STORAGE_URL``, else ``parquet:./llmops_data``. It is closed at exit.
    """
    with _lock:
        found = _default
        if found is None or found.closed:
            found = Monitor()
            replace_default(found)
        return found


def replace_default(monitor: Monitor) -> Monitor | None:
    """Make *monitor* the one that is used where none is named, and return the one before.

    It is given what calls without a monitor have recorded so far.
    """
    global _default
    with _lock:
        before, _default = _default, monitor
        holding.hand_over_to(monitor.recorder)
        for changed in tuple(_followers):
            try:
                changed(monitor)
            except Exception as error:  # an integration that cannot follow costs itself alone
                monitor.recorder.report("follow_default_monitor", error)
        return before


def follow_default_monitor(changed: Callable[[Monitor], object]) -> None:
    """Call *changed* with each monitor that becomes the default one.

    For integrations that attach to it. Called on the thread that sets monitoring up; what it raises
    is counted.
    """
    with _lock:
        if changed not in _followers:
            _followers.append(changed)


def current_default() -> Monitor | None:
    """Return the default monitor if there is one, open or closed."""
    return _default


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
holding.hold(default_monitor)
