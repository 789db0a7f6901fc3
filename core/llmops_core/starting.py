"""Start and stop monitoring for the calls that name no monitor."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from typing import TYPE_CHECKING, Any

from llmops_core import holding
from llmops_core.config import make_settings, storage_url
from llmops_core.default import current_default, replace_default
from llmops_core.delivery.flushing import FlushReport
from llmops_core.errors import ConfigError
from llmops_core.monitor import Monitor

if TYPE_CHECKING:
    from llmops_core.configuration import MonitorConfig

__all__ = ["ashutdown", "initialize_monitoring", "initialize_monitoring_sync", "shutdown"]


async def initialize_monitoring(
    config: MonitorConfig | Monitor | None = None, **settings: Any
) -> Monitor:
    """Open the monitor of all calls that name none, and return it. Does not block the event loop.

    *config* is a :class:`~llmops_core.MonitorConfig` or an open monitor; without it the keywords
    are those of :class:`~llmops_core.Monitor`.

    What was called before is kept and given to it. A second call opens another monitor and closes
    the first. A set-up that cannot work raises here.
    """
    return await asyncio.to_thread(initialize_monitoring_sync, config, **settings)


def initialize_monitoring_sync(
    config: MonitorConfig | Monitor | None = None, **settings: Any
) -> Monitor:
    """:func:`initialize_monitoring`, blocking: where there is no event loop."""
    opened = _open(config, settings)
    before = replace_default(opened)
    if before is not None and before is not opened:
        before.close()
    return opened


def _open(config: Any, settings: dict[str, Any]) -> Monitor:
    if isinstance(config, Monitor) and not settings:
        return config
    arguments = getattr(config, "monitor_arguments", None)
    if config is not None and (arguments is None or isinstance(config, type)):
        raise ConfigError(
            f"initialize_monitoring got a {type(config).__name__}"
            + (" and settings" if settings else ""),
            "expected a MonitorConfig or an open Monitor, or only keywords",
        )
    return Monitor(**{**(arguments() if arguments is not None else {}), **settings})


def shutdown(timeout: float | None = None) -> FlushReport | None:
    """Store what there is and close the default monitor; None if there is none.

    Calls after it are not recorded, but counted as dropped, until monitoring is initialised again.
    """
    monitor = current_default()
    return None if monitor is None else monitor.close(timeout)


async def ashutdown(timeout: float | None = None) -> FlushReport | None:
    """:func:`shutdown`, without blocking the event loop."""
    return await asyncio.to_thread(shutdown, timeout)


@atexit.register
def _spill_at_exit() -> None:
    """Journal what was recorded although no monitor was ever opened."""
    queue = holding.waiting_queue()
    if queue is None:
        return
    from llmops_core.spilling import spill

    with contextlib.suppress(Exception):  # at exit nobody can be told
        spill(queue, make_settings({}), storage_url())
