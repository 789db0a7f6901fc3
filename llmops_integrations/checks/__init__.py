"""What ``llmops doctor`` checks of the frameworks: they register as a third party's checks would."""

from __future__ import annotations

from llmops_core import Registry, hookimpl
from llmops_integrations.checks.frameworks import Frameworks
from llmops_integrations.checks.hooks import Hooks
from llmops_integrations.checks.telemetry import Telemetry
from llmops_integrations.checks.vendors import Vendors

__all__ = ["llmops_register"]


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the checks."""
    registry.check("frameworks", lambda _: Frameworks())
    registry.check("hooks", lambda _: Hooks())
    registry.check("vendors", lambda _: Vendors())
    registry.check("telemetry", lambda _: Telemetry())
