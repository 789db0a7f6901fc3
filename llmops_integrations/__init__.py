"""Monitors LangChain, LangGraph and CrewAI applications; the core is ``llmops_core``."""
