"""Draw the README's picture: what ``llmops demo`` prints, as an SVG without anything remote.

Run it from the root of the repository: ``python docs/make_picture.py``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE = Path(__file__).parent / "images" / "demo-trace.svg"
COLUMNS = 104
FONTS = "'DejaVu Sans Mono', ui-monospace, Menlo, Consolas, monospace"
THEME = TerminalTheme(
    (22, 27, 34),
    (220, 225, 232),
    [
        (22, 27, 34),
        (255, 123, 114),
        (126, 211, 134),
        (240, 190, 90),
        (121, 170, 255),
        (214, 140, 255),
        (86, 200, 216),
        (220, 225, 232),
    ],
    [
        (128, 138, 152),
        (255, 123, 114),
        (126, 211, 134),
        (240, 190, 90),
        (121, 184, 255),
        (214, 140, 255),
        (86, 200, 216),
        (255, 255, 255),
    ],
)


def demo_output() -> str:
    """Run the demo in a folder of its own, as on a terminal, and return what it printed."""
    settings = {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMOPS_", "NO_COLOR"))}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "llmops_core.cli", "demo", "--no-measure"],
            cwd=folder,
            env={**kept, **settings, "LLMOPS_STATE_DIR": f"{folder}/.state"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
    return done.stdout.partition("What it cost")[0].rstrip()


def svg(output: str) -> str:
    """Draw text with ANSI colours as an SVG that needs no font of its own."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(
            Text().append("$ ", style="bright_black").append("llmops demo", style="default")
        )
        console.print()
        console.print(Text.from_ansi(output), no_wrap=True, overflow="ignore", crop=False)
        drawn = console.export_svg(title="llmops demo", theme=THEME, unique_id="llmops-demo")
    drawn = re.sub(r"\s*@font-face\s*\{[^}]*\}", "", drawn)
    drawn = drawn.replace("font-family: Fira Code, monospace", f"font-family: {FONTS}")
    return re.sub(r"font-family:\s*arial", f"font-family: {FONTS}", drawn)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg(demo_output()), encoding="utf-8")
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")
