"""``llmops tokens``: how the tokens of each encoding are counted here, and placing vocabularies."""

from __future__ import annotations

import typer

from llmops_core.cli.options import JsonOption

__all__ = ["tokens"]

tokens = typer.Typer(help="How tokens are counted here; place vocabularies by hand.")


@tokens.command("status")
def status(as_json: JsonOption = False) -> None:
    """Show for each encoding whether its tokens are counted exactly on this machine."""
    from llmops_core.cli.console import print_json
    from llmops_core.measuring.counting import counter_for
    from llmops_core.measuring.encodings import ENCODINGS

    exact = {name: counter_for(name) is not None for name in ENCODINGS}
    if as_json:
        print_json(exact)
        return
    for name, found in exact.items():
        typer.echo(f"{name:<14}{'exact' if found else 'estimated: no vocabulary here'}")


@tokens.command("install")
def install(
    source: str = typer.Argument(
        help="A .tiktoken file, or an encoding that tiktoken is to download now."
    ),
) -> None:
    """Place a vocabulary, so that its encoding is counted exactly without the network."""
    from llmops_core.measuring import vocabularies

    name = vocabularies.install(source)
    typer.echo(f"placed {name} in {vocabularies.folder()}")
