"""Where commands print: rich for people, JSON for programs, errors on stderr."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmops_core.config import storage_url
from llmops_core.errors import LLMOpsError, StorageError
from llmops_core.render.text import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from llmops_core import StorageReader

__all__ = [
    "check_written",
    "console",
    "iso",
    "masked",
    "nothing_written",
    "print_error",
    "print_json",
    "print_lines",
    "print_renderable",
    "reading",
    "wire",
]

#: Wide enough for a trace and narrow enough for a log, where the output is not a terminal.
PIPED_WIDTH: Final = 120


def console(*, stderr: bool = False) -> Console:
    """Return a console: colour on a terminal only (``NO_COLOR`` wins), and no markup."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)
    if not made.is_terminal and "COLUMNS" not in made._environ:
        made.width = PIPED_WIDTH
    return made


def print_lines(lines: Iterable[Text]) -> None:
    """Print lines that are already fitted to the width, without trailing blanks."""
    out = console()
    for line in lines:
        line.rstrip()
        out.print(line, overflow="ignore", no_wrap=True, crop=False)


def print_renderable(renderable: RenderableType) -> None:
    """Print a table."""
    console().print(renderable)


def print_json(value: object) -> None:
    """Print JSON in ASCII, so that no stored character can act on a terminal."""
    sys.stdout.write(json.dumps(value, indent=2, default=wire) + "\n")


def print_error(error: LLMOpsError) -> None:
    """Print what was found, what was expected and what to do, on stderr."""
    out = console(stderr=True)
    out.print("error: ", style="bold red", end="")
    out.print(visible(masked(error.found or str(error))), soft_wrap=True)
    for label, text in (("expected", error.expected), ("do", error.do)):
        if text:
            plain = text.removeprefix("expected ") if label == "expected" else text
            out.print(f"  {label}: {visible(masked(plain))}", soft_wrap=True)


@contextmanager
def reading(url: str | None) -> Iterator[StorageReader]:
    """Open the storage of a command for reading, and close it."""
    from llmops_core import open_storage

    url = url or storage_url()
    check_written(url)
    with open_storage(url) as storage:
        yield storage


def check_written(url: str) -> None:
    """Raise where the URL names a Parquet folder that is not there, and say how to make one."""
    if nothing_written(url):
        raise StorageError(
            f"nothing is stored in {masked(url)} yet",
            "a folder that a monitor has written",
            "run `llmops demo` to make one, or name another with --storage URL",
        )


def nothing_written(url: str) -> bool:
    """Whether the URL names a Parquet folder that is not there."""
    scheme, _, folder = url.partition(":")
    if scheme != "parquet" or "://" in folder:
        return False
    return not Path(folder.removeprefix("//")).exists()


def iso(micros: int | None) -> str | None:
    """Return UTC microseconds as ISO text."""
    if micros is None:
        return None
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (epoch + dt.timedelta(microseconds=micros)).isoformat(timespec="microseconds")


def wire(value: Any) -> Any:
    """Return a value that JSON knows: times as ISO text, everything else as text."""
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def masked(url: str) -> str:
    """Hide the password of a URL, wherever it stands."""
    url = re.sub(r"(://[^/@\s:]*):\S*@", r"\1:***@", url)
    return re.sub(
        r"(?i)([?&;](?:password|pass|pwd|token|secret|key)[^=&;]*)=[^&;\s]*", r"\1=***", url
    )
