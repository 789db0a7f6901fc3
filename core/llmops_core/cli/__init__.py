"""The ``llmops`` command. Only this package imports typer; heavy imports wait for a command."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error of ours is three lines on stderr and exit code 2."""
    from llmops_core.cli.app import run

    run()
