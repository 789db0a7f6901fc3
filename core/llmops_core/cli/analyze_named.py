"""``llmops analyze NAME``: an analyzer that a plugin registers, over stored spans."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from llmops_core.cli.options import JsonOption, SinceOption, StorageOption, moment

__all__ = ["COMMAND", "AnalyzeGroup", "named"]

#: No name of an analyzer has a colon in front.
COMMAND: Final = ":analyzer"


class AnalyzeGroup(TyperGroup):
    """Takes what is no command for the name of an analyzer."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of a name, and its arguments."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = [COMMAND, *args]
        return super().resolve_command(ctx, args)


def named(
    analyzer: Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAME:ARGUMENT.")],
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000_000, help="Spans at most.")] = 100_000,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an analyzer that a plugin registers over stored spans, in order of time."""
    import pyarrow as pa

    from llmops_core.cli.console import print_json, reading
    from llmops_core.cli.query import answer_rows, print_answer
    from llmops_core.errors import plugin_errors
    from llmops_core.parts import make_parts
    from llmops_core.plugins import PluginHost

    (made,) = make_parts(PluginHost(), "analyzer", [analyzer]).values()
    equal: dict[str, Any] = {"session_id": session} if session else {}
    start = moment("--since", since)
    with reading(storage) as reader:
        spans = reader.query(since=start, order=["start_time"], limit=limit, **equal)
    with plugin_errors(f"analyzer {analyzer!r}"):
        table = made.analyze(spans)
        if not isinstance(table, pa.Table):
            raise TypeError("no table")
    if as_json:
        print_json(answer_rows(table))
    elif table.num_rows:
        print_answer(table, (), wider="add --json")
    else:
        typer.echo("The analyzer found nothing.")
    if spans.num_rows == limit:
        typer.echo(f"{limit:,} spans were read; there may be more: raise --limit", err=True)
