"""How single values read: durations, tokens, outcomes, and stored text made safe for a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from rich.cells import cell_len, set_cell_size

from llmops_core.span import Span

__all__ = [
    "clipped",
    "count_text",
    "duration_text",
    "kind_style",
    "outcome_text",
    "plural",
    "tokens_text",
    "visible",
    "wrapped",
]

#: Icon, word and style: never the colour alone. Every icon is one cell wide.
_OUTCOMES: Final[dict[str, tuple[str, str]]] = {
    "ok": ("✓ ok", "green"),
    "error": ("✗ error", "bold red"),
    "interrupted": ("◐ interrupted", "yellow"),
    "handed_off": ("⇢ handed off", "cyan"),
    "cancelled": ("⊘ cancelled", "yellow"),
    "abandoned": ("⊘ abandoned", "yellow"),
    "incomplete": ("? incomplete", "yellow"),
    "open": ("○ open", "yellow"),
}
_KINDS: Final[dict[str, str]] = {
    "workflow": "bright_blue",
    "agent": "bright_blue",
    "llm": "magenta",
    "embedding": "magenta",
    "tool": "cyan",
    "retriever": "cyan",
    "guardrail": "green",
    "handoff": "yellow",
    "event": "yellow",
}
#: Control, format (bidi, zero width, tags), surrogate, private, unassigned, line and paragraph.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: Joiners spell words of many scripts, and emoji; beside a letter of ASCII they only deceive.
_JOINER: Final = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")


def visible(text: str) -> str:
    """Return *text* with what a terminal would obey or hide written as escapes."""
    if text.isascii() and text.isprintable():
        return text
    kept = {match.start() for match in _JOINER.finditer(text)}
    return "".join(
        _escape(c) if unicodedata.category(c) in _HIDDEN and i not in kept else c
        for i, c in enumerate(text)
    )


def _escape(character: str) -> str:
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def clipped(text: str, width: int) -> str:
    """Return *text* made visible and no wider than *width* cells, an ellipsis where it was cut."""
    shown = visible(text[: width + 1])
    if cell_len(shown) <= width and len(text) <= width + 1:
        return shown
    return set_cell_size(shown, max(0, width - 1)).rstrip() + "…"


def wrapped(text: str, width: int, max_lines: int) -> list[str]:
    """Break *text* into at most *max_lines* of *width* cells, an ellipsis where it was cut."""
    lines: list[str] = []
    rest = visible(text[: width * max_lines + 1])
    while rest and len(lines) < max_lines:
        if len(lines) == max_lines - 1:
            lines.append(clipped(rest, width))
            break
        end = _break(rest, width)
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return lines


def _break(text: str, width: int) -> int:
    """Where to break *text*: at the last blank that fits, else in the middle of a word."""
    end, cells = 0, 0
    while end < len(text):
        cells += cell_len(text[end])
        if cells > width:
            break
        end += 1
    if end == len(text):
        return end
    blank = text.rfind(" ", width // 2, end + 1)
    return blank if blank > 0 else max(1, end)


def duration_text(ms: float | None) -> str:
    """``0.4 ms``, ``12 ms``, ``1.24 s``, ``2m 05s``, ``1h 02m``; a dash where it is unknown."""
    if ms is None:
        return "-"
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def tokens_text(span: Span) -> str:
    """``210 → 12``; ``~`` marks an estimate, ``-`` an unknown side; empty where both are."""
    if span.input_tokens is None and span.output_tokens is None:
        return ""
    sides = ["-" if n is None else f"{n:,}" for n in (span.input_tokens, span.output_tokens)]
    mark = "~" if span.usage_source == "estimated" else ""
    return f"{mark}{sides[0]} → {sides[1].rjust(3)}"


def outcome_text(outcome: str) -> tuple[str, str]:
    """Return icon and word of an outcome, and its style."""
    return _OUTCOMES.get(outcome) or (f"? {clipped(outcome, 12)}", "yellow")


def kind_style(kind: str) -> str:
    """Return the style of a kind; what is only structure is muted."""
    return _KINDS.get(kind, "bright_black")


def count_text(count: int) -> str:
    """``9,975``."""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """``1 span``, ``23 spans``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
