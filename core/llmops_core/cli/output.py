"""Where the command line writes: pipes that close, disks that are full, terminals without UTF-8."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar, cast

__all__ = ["CLOSED_PIPE", "guarded_output"]

#: What a shell reports for a command that SIGPIPE ended, such as ``ls`` before ``head``.
CLOSED_PIPE: Final = 141
_FAILED: Final = 2
#: One cell each, so that columns stay aligned, and a mark of its own for each outcome.
_ASCII: Final = {
    "✓": "+", "✗": "x", "◐": "~", "⇢": ">", "⊘": "/", "○": "o", "◆": "*", "↻": "^", "↳": ">",
    "→": ">", "…": ".", "·": "-", "µ": "u", "│": "|", "├": "|", "└": "`", "─": "-", "╶": "-",
    "╴": "-", "━": "=", "╺": "=", "╸": "=",
}  # fmt: skip
_T = TypeVar("_T")


def _ascii(error: UnicodeError) -> tuple[str, int]:
    """Spell what an encoding lacks: our marks by their likeness, all else as ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(c, "?") for c in lacking), error.end


codecs.register_error("llmops", _ascii)


class _Output:
    """A stream whose failure ends the command, with one line or silently, never a traceback.

    Click and rich both turn a closed pipe into exit code 1, which ``doctor`` uses for a storage
    that fails; so the failure is met here, below them.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._tried(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _tried(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except BrokenPipeError:
            self._abandon()
            raise SystemExit(CLOSED_PIPE) from None
        except OSError as error:
            self._abandon()
            if self._stream is not sys.__stderr__:
                print(f"error: cannot write the output: {error.strerror}", file=sys.stderr)
            raise SystemExit(_FAILED) from None

    def _abandon(self) -> None:
        """Send what is still buffered nowhere, or the interpreter fails on it at its end."""
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextmanager
def guarded_output() -> Iterator[None]:
    """Guard stdout and stderr while a command runs, and flush them at its end."""
    before = sys.stdout, sys.stderr
    for stream in before:  # None where the command was started without one
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="llmops")
    guarded = [None if stream is None else _Output(stream) for stream in before]
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", guarded)
    try:
        yield
    finally:
        try:
            for stream in filter(None, guarded):
                stream.flush()
        finally:
            sys.stdout, sys.stderr = before
