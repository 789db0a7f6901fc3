"""Monitors CrewAI: ``with monitor_crew(crew): crew.kickoff()``, or ``CrewListener().attach()``."""

from __future__ import annotations

from llmops_core import follow_framework
from llmops_integrations.crewai import reading
from llmops_integrations.crewai.listener import control_flow, open_here, open_run
from llmops_integrations.crewai.monitor_crew import CrewListener, monitor_crew

__all__ = ["CrewListener", "monitor_crew"]

reading.register()
follow_framework(open_run, control_flow, open_here)
