"""Other tools in this environment that record the same runs. They are left alone, and we by them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from llmops_core import Finding
from llmops_integrations.checks.frameworks import version_of

__all__ = ["VENDORS", "Vendors"]


class Vendor(NamedTuple):
    """A tool: its packages, the variables that switch it on, and those that give it an address."""

    name: str
    packages: tuple[str, ...]
    switches: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


VENDORS: Final = (
    Vendor(
        "OpenInference",
        ("openinference-instrumentation-langchain", "openinference-instrumentation-crewai"),
    ),
    Vendor(
        "OpenLLMetry",
        (
            "traceloop-sdk",
            "opentelemetry-instrumentation-langchain",
            "opentelemetry-instrumentation-crewai",
        ),
    ),
    Vendor("Langfuse", ("langfuse",), (), ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")),
    Vendor(
        "LangSmith",
        ("langsmith",),
        (
            "LANGSMITH_TRACING",
            "LANGSMITH_TRACING_V2",
            "LANGCHAIN_TRACING",
            "LANGCHAIN_TRACING_V2",
        ),
        ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY"),
    ),
    Vendor("CrewAI tracing", ("crewai",), ("CREWAI_TRACING_ENABLED",)),
    Vendor(
        "OpenTelemetry SDK",
        ("opentelemetry-sdk",),
        (),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    ),
    Vendor("Logfire", ("logfire",), (), ("LOGFIRE_TOKEN",)),
    Vendor("MLflow", ("mlflow",), (), ("MLFLOW_TRACKING_URI",)),
    Vendor("Opik", ("opik",), (), ("OPIK_API_KEY",)),
    Vendor("AgentOps", ("agentops",), (), ("AGENTOPS_API_KEY",)),
    Vendor("OpenLIT", ("openlit",)),
    Vendor("Weave", ("weave",), (), ("WANDB_API_KEY",)),
    Vendor("Datadog", ("ddtrace",), ("DD_LLMOBS_ENABLED",)),
)
_YES: Final = ("true", "1")


class Vendors:
    """Packages and variables; values of variables are never shown."""

    def check(self) -> Iterator[Finding]:
        """Return one finding for each tool that is installed."""
        found = [finding for vendor in VENDORS if (finding := _found(vendor)) is not None]
        yield from found or [Finding("none is installed")]


def _found(vendor: Vendor) -> Finding | None:
    packages = {p: version for p in vendor.packages if (version := version_of(p)) is not None}
    if not packages:
        return None
    on = [name for name in vendor.switches if os.environ.get(name, "").strip().lower() in _YES]
    addresses = [name for name in vendor.addresses if os.environ.get(name)]
    parts = [", ".join(f"{package} {version}" for package, version in packages.items())]
    if vendor.switches:
        parts.append(f"on ({', '.join(on)})" if on else "off")
    if addresses:
        parts.append(f"{', '.join(addresses)} set")
    facts = {"packages": packages, "switched_on_by": on, "variables_set": addresses}
    text = f"{vendor.name}: {'; '.join(parts)}"
    return Finding(text, "note" if on else "ok", {"name": vendor.name, **facts})
