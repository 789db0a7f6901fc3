"""The options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "SinceOption", "StorageOption"]

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
