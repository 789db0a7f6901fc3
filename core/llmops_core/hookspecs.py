"""The hooks that a plugin may implement. ``docs/hooks.md`` documents each one.

All are plain functions: pluggy stops at the first error and cannot await, so a hook registers or
notifies, and the registered object does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.monitor import Monitor
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = [
    "PROJECT",
    "hookimpl",
    "llmops_handoff",
    "llmops_monitor_started",
    "llmops_monitor_stopping",
    "llmops_plugin_failed",
    "llmops_register",
    "llmops_spans_stored",
]

PROJECT: Final = "llmops"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def llmops_register(registry: Registry) -> None:
    """Register what the plugin provides.

    Called once, when the plugin is loaded, on the thread that opens the monitor. Must not block.
    If it raises, opening the monitor raises a ``PluginError`` that names the plugin.
    """


@hookspec
def llmops_spans_stored(batch: SpanBatch) -> None:
    """Learn that a batch was stored. Must not change it.

    Called on a helper thread of the delivery, after the storage's write returned. If it raises, the
    failure is counted, and after five in a row the plugin is cut off.
    """


@hookspec
def llmops_handoff(handoff: Span) -> None:
    """Learn that a handoff was stored: a span of kind ``handoff``. Must not change it.

    ``handoff_confirmed`` says whether the target really started; ``input`` is what the source
    passed and ``output`` what the target received. Called on the helper thread of the hooks, once
    for each, after ``llmops_spans_stored``.
    """


@hookspec
def llmops_monitor_started(monitor: Monitor) -> None:
    """Learn that a monitor is open.

    Called on the helper thread of the hooks; making the monitor waits for it, a second at most.
    """


@hookspec
def llmops_monitor_stopping(monitor: Monitor) -> None:
    """Learn that a monitor is about to close, while it still takes spans.

    Called on the helper thread of the hooks; closing waits for it, a second at most.
    """


@hookspec
def llmops_plugin_failed(plugin: str, where: str, error: BaseException) -> None:
    """Learn that a failure of a plugin was swallowed.

    ``plugin`` is its name, ``where`` the call that failed. Called on the helper thread of the
    hooks. What is raised here is counted and not reported again.
    """
