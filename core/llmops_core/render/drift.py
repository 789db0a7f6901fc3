"""Drift as coloured text: both texts of a handoff side by side, each value by what became of it.

Never the colour alone: each value stands in brackets of its own kind, so that the picture reads in
a log and for those who do not see red from green.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from rich.text import Text

from llmops_core.render.text import visible

if TYPE_CHECKING:
    from llmops_core.analysis.texts import Comparison

__all__ = ["LEGEND", "MARKS", "marked", "side_by_side"]

#: Brackets and style by what became of a value.
MARKS: Final[dict[str, tuple[str, str, str]]] = {
    "kept": ("", "", "green"),
    "reformatted": ("", "", "cyan"),
    "implied": ("", "", "cyan"),
    "altered": ("≠", "", "bold yellow"),
    "lost": ("✗", "", "bold red"),
    "unknown": ("?", "", "magenta"),
    "added": ("+", "", "bold blue"),
}
LEGEND: Final = "✗ lost   ≠ altered   + added   ? cut off, so unknown"
_GAP: Final = " │ "
_NARROWEST: Final = 24


def side_by_side(
    before: str, after: str, compared: Comparison, width: int, most_lines: int = 40
) -> list[Text]:
    """Return the lines of a picture of two texts, each wrapped in its half of *width*."""
    half = max(_NARROWEST, (width - len(_GAP)) // 2)
    left = _lines(marked(before, _first(compared)), half, most_lines)
    right = _lines(marked(after, compared.places_in_second()), half, most_lines)
    lines = []
    for one, other in zip_longest(left, right, fillvalue=Text()):
        line = Text()
        line.append_text(one)
        line.append(" " * max(0, half - one.cell_len))
        line.append(_GAP, style="bright_black")
        line.append_text(other)
        lines.append(line)
    return lines


def marked(text: str, places: Iterable[tuple[int, int, str]]) -> Text:
    """Return a text with its values marked; places that overlap an earlier one are left out."""
    out = Text()
    at = 0
    for start, end, status in sorted(places):
        if start < at or end <= start or status not in MARKS:
            continue
        before, after, style = MARKS[status]
        out.append(_shown(text[at:start]))
        out.append(before + _shown(text[start:end]) + after, style=style)
        at = end
    out.append(_shown(text[at:]))
    return out


def _first(compared: Comparison) -> list[tuple[int, int, str]]:
    return [(f.start, f.end, f.status) for f in compared.fates if f.status != "added"]


def _shown(text: str) -> str:
    """Return text that no terminal obeys, with its line breaks."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _lines(text: Text, width: int, most: int) -> Sequence[Text]:
    from rich.console import Console

    wrapped = list(text.wrap(Console(width=width, color_system=None), width, tab_size=4))
    for line in wrapped:
        line.rstrip()
    if len(wrapped) > most:
        more = len(wrapped) - most
        wrapped = [*wrapped[:most], Text(f"… {more} more lines", style="bright_black")]
    return wrapped
