"""Monitors LLM applications: the front door. Importing it imports nothing heavy."""

from typing import TYPE_CHECKING, Any

from llmops_core.batch import SpanBatch, spans_from_arrow, spans_to_arrow
from llmops_core.breakers import Breakers
from llmops_core.clock import Clock
from llmops_core.context import add_session_fields, monitoring_session, monitoring_trace
from llmops_core.decorating.decorator import monitor_llm
from llmops_core.decorating.interrupted import Interrupted
from llmops_core.default import default_monitor, follow_default_monitor
from llmops_core.delivery.flushing import FlushReport
from llmops_core.errors import (
    BreakerTripped,
    ConfigError,
    LLMOpsError,
    MissingDependency,
    MonitorClosed,
    PermanentError,
    PluginError,
    QueryError,
    RetryableError,
    StorageError,
    UnknownPart,
    UnknownStorage,
)
from llmops_core.freeze.error_text import describe_error
from llmops_core.freeze.freezer import Freezer, Frozen, know
from llmops_core.hookspecs import hookimpl
from llmops_core.intake.recorder import Recorder
from llmops_core.measuring.measure import measure_text, measure_text_sync
from llmops_core.measuring.published import CollectorRegistry, MetricCollector
from llmops_core.monitor import Monitor
from llmops_core.nesting import OpenRun, enclosing_run, follow_framework, is_nested, late_here
from llmops_core.plugins import Registry
from llmops_core.propagation import carry, traceparent
from llmops_core.protocols import Check, Collector, Editable, Exporter, Finding, Storage
from llmops_core.query import Aggregate, Filter, Order, SpanQuery
from llmops_core.reader import StorageReader, open_storage
from llmops_core.render.span_tree import span_tree
from llmops_core.span import KINDS, OUTCOMES, SCHEMA_VERSION, Kind, Outcome, Span
from llmops_core.starting import (
    ashutdown,
    initialize_monitoring,
    initialize_monitoring_sync,
    shutdown,
)
from llmops_core.storage.published import MetricEvent, StorageBackend

__all__ = [
    "KINDS",
    "OUTCOMES",
    "SCHEMA_VERSION",
    "AgentDetector",
    "Aggregate",
    "BreakerTripped",
    "Breakers",
    "Check",
    "Clock",
    "Collector",
    "CollectorRegistry",
    "ConfigError",
    "ContextDriftDetector",
    "DatadogConfig",
    "Editable",
    "Exporter",
    "Filter",
    "Finding",
    "FlushReport",
    "Freezer",
    "Frozen",
    "HandoffAnalyzer",
    "Interrupted",
    "Kind",
    "LLMOpsError",
    "MetricCollector",
    "MetricEvent",
    "MissingDependency",
    "Monitor",
    "MonitorClosed",
    "MonitorConfig",
    "OpenRun",
    "Order",
    "Outcome",
    "PermanentError",
    "PluginError",
    "PrometheusConfig",
    "QueryError",
    "Recorder",
    "Registry",
    "RetryableError",
    "Span",
    "SpanBatch",
    "SpanQuery",
    "Storage",
    "StorageBackend",
    "StorageConfig",
    "StorageError",
    "StorageReader",
    "UnknownPart",
    "UnknownStorage",
    "WebSocketConfig",
    "add_session_fields",
    "ashutdown",
    "carry",
    "default_monitor",
    "describe_error",
    "enclosing_run",
    "follow_default_monitor",
    "follow_framework",
    "hookimpl",
    "initialize_monitoring",
    "initialize_monitoring_sync",
    "is_nested",
    "know",
    "late_here",
    "measure_text",
    "measure_text_sync",
    "monitor_llm",
    "monitoring_session",
    "monitoring_trace",
    "open_storage",
    "shutdown",
    "span_tree",
    "spans_from_arrow",
    "spans_to_arrow",
    "traceparent",
]

if TYPE_CHECKING:
    from llmops_core.analysis.published import (
        AgentDetector,
        ContextDriftDetector,
        HandoffAnalyzer,
    )
    from llmops_core.configuration import (
        DatadogConfig,
        MonitorConfig,
        PrometheusConfig,
        StorageConfig,
        WebSocketConfig,
    )

#: Imported when they are first asked for: pydantic takes longer than all else together, and the
#: analyses are not for the program that is monitored.
_LAZY = dict.fromkeys(
    ("DatadogConfig", "MonitorConfig", "PrometheusConfig", "StorageConfig", "WebSocketConfig"),
    "llmops_core.configuration",
) | dict.fromkeys(
    ("AgentDetector", "ContextDriftDetector", "HandoffAnalyzer"), "llmops_core.analysis.published"
)


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)
