"""The options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "SinceOption", "StorageOption", "moment"]

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="Storage to use; LLMOPS_STORAGE_URL if unset, else parquet:./llmops_data.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="15m, 2h, 7d, or ISO time such as 2026-01-31."),
]


def moment(option: str, text: str | None) -> int | None:
    """Return the UTC microseconds that an option's text means, or raise and name the option."""
    from llmops_core.errors import QueryError
    from llmops_core.query import micros

    try:
        return micros(text)
    except QueryError:
        raise QueryError(
            f"{option} {text!r} is no moment in time",
            "15m, 2h or 7d back from now, or ISO time such as 2026-01-31T12:00",
        ) from None
