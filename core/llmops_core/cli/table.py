"""Tables that fit: whole columns give way in a terminal, and nothing is cut in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["TableColumn", "fitted", "print_table"]

_GAP: Final = 2
#: Hidden columns that the note names; more are counted.
_NAMED: Final = 8


class TableColumn(NamedTuple):
    """A column: its title, when it gives way, the cells that it may shrink to, and its side."""

    title: str
    #: Of the columns that do not fit, the one with the highest number is hidden first.
    gives_way: int
    #: None never shrinks: an outcome or a number that is cut says something else.
    least: int | None = None
    right: bool = False


def print_table(
    columns: Sequence[TableColumn], rows: Sequence[Sequence[Text]], *, wider: str = ""
) -> None:
    """Print rows; say on stderr which columns the terminal has no room for, and what helps."""
    import typer

    from llmops_core.cli.console import console, print_lines

    out = console()
    widths = fitted(columns, rows, out.width if out.is_terminal else None)
    shown = [index for index, width in enumerate(widths) if width]
    print_lines(_lines(columns, rows, widths, shown))
    hidden = [column.title for index, column in enumerate(columns) if index not in shown]
    if hidden:
        named = ", ".join(hidden[:_NAMED])
        if len(hidden) > _NAMED:
            named += f" and {len(hidden) - _NAMED} more"
        typer.echo(
            f"No room for: {named}. Widen the terminal, or {wider or 'add --json'}.", err=True
        )


def fitted(
    columns: Sequence[TableColumn], rows: Sequence[Sequence[Text]], width: int | None
) -> list[int]:
    """Return the cells of each column, 0 for one that is hidden; no *width* cuts and hides none."""
    full = [
        max([len(column.title), *(row[index].cell_len for row in rows)])
        for index, column in enumerate(columns)
    ]
    if width is None:
        return full
    least = [
        cells if column.least is None else min(cells, max(column.least, len(column.title)))
        for column, cells in zip(columns, full, strict=True)
    ]
    shown = list(range(len(columns)))
    while len(shown) > 1 and sum(least[i] + _GAP for i in shown) - _GAP > width:
        shown.remove(max(shown, key=lambda i: (columns[i].gives_way, i)))
    widths = [least[i] if i in shown else 0 for i in range(len(columns))]
    room = width - sum(widths[i] + _GAP for i in shown) + _GAP
    for index in shown:  # what is left goes to the first columns that were shortened
        more = min(max(room, 0), full[index] - widths[index])
        widths[index] += more
        room -= more
    return widths


def _lines(
    columns: Sequence[TableColumn],
    rows: Sequence[Sequence[Text]],
    widths: Sequence[int],
    shown: Sequence[int],
) -> list[Text]:
    from rich.text import Text

    lines = []
    for row in ([Text(column.title, style="bright_black") for column in columns], *rows):
        line = Text()
        for index in shown:
            cell = row[index].copy()
            cell.truncate(widths[index], overflow="ellipsis")
            blank = " " * (widths[index] - cell.cell_len)
            if index != shown[0]:
                line.append(" " * _GAP)
            if columns[index].right:
                line.append(blank)
            line.append_text(cell)
            if not columns[index].right:
                line.append(blank)
        lines.append(line)
    return lines
