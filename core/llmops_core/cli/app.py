"""The commands put together, and what happens when one of them fails."""

from __future__ import annotations

import typer

from llmops_core.cli.analyze import analyze
from llmops_core.cli.compact import compact
from llmops_core.cli.copy import copy
from llmops_core.cli.demo import demo
from llmops_core.cli.doctor import doctor
from llmops_core.cli.output import guarded_output
from llmops_core.cli.quarantine import quarantine
from llmops_core.cli.query import query
from llmops_core.cli.recover import recover
from llmops_core.cli.run import SETTINGS as RUN_SETTINGS
from llmops_core.cli.run import run as run_program
from llmops_core.cli.tokens import tokens
from llmops_core.cli.trace import trace
from llmops_core.cli.traces import traces
from llmops_core.cli.waiting import waiting
from llmops_core.errors import LLMOpsError

__all__ = ["app", "run"]

app = typer.Typer(
    name="llmops",
    help="Look at what your LLM application did: traces, spans, tokens and errors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command("run", context_settings=RUN_SETTINGS)(run_program)
app.command()(traces)
app.command()(trace)
app.command()(query)
app.command()(waiting)
app.add_typer(analyze, name="analyze")
app.command()(doctor)
app.command()(recover)
app.command()(compact)
app.command()(copy)
app.add_typer(quarantine, name="quarantine")
app.add_typer(tokens, name="tokens")


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(f"llmops {importlib.metadata.version('llmops-integrations')}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", callback=_version, is_eager=True
    ),
) -> None:
    pass


def run() -> None:
    """Run the command line, and turn an error of ours into text and exit code 2."""
    with guarded_output():
        try:
            app()
        except LLMOpsError as error:
            from llmops_core.cli.console import print_error

            print_error(error)
            raise SystemExit(2) from None
