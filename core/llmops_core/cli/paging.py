"""The cursor that names the next page on the command line."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any

import typer

__all__ = ["PageOption", "cursor", "page_key"]

PageOption = Annotated[
    str | None,
    typer.Option("--page", metavar="CURSOR", help="The next page, as the last one named it."),
]


def cursor(after: tuple[Any, ...] | None) -> str:
    """Return the text of a page's key."""
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode().rstrip("=")


def page_key(page: str | None) -> list[Any] | None:
    """Return the key that a cursor holds, or raise and say where cursors come from."""
    from llmops_core.errors import QueryError

    if page is None:
        return None
    try:
        decoded = json.loads(base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)))
    except (binascii.Error, ValueError):
        decoded = None
    if not isinstance(decoded, list):
        raise QueryError(
            f"--page {page!r}", "the cursor that the page before named", "leave --page out to start"
        )
    return decoded
