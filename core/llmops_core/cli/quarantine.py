"""``llmops quarantine``: spans that a storage refuses for good, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_core.cli.options import JsonOption, StorageOption

if TYPE_CHECKING:
    from llmops_core.journal.quarantine import Quarantine, Refused
    from llmops_core.protocols import Storage

__all__ = ["quarantine"]

quarantine = typer.Typer(
    help="List, store again or drop the spans that the storage refuses.", no_args_is_help=True
)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[SPAN_ID]...", help="These alone.")
]


@quarantine.command("list")
def list_refused(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List what is kept, and why the storage refused it."""
    from llmops_core.cli.console import iso, masked, print_json
    from llmops_core.render.text import plural, visible

    url, kept = _kept(storage)
    found = [] if kept is None else list(kept)
    if as_json:
        spans = [_described(refused) for refused in found]
        print_json({"storage": masked(url), "folder": _folder(kept), "spans": spans})
        return
    for refused in found:
        span = refused.span
        when = (iso(refused.time) or "")[:19]
        line = f"{when}  {span.span_id}  {span.kind} {span.name}: {refused.reason}"
        typer.echo(visible(line))
    typer.echo(f"{plural(len(found), 'span')} in quarantine.")


@quarantine.command()
def retry(
    ids: IdsArgument = None, storage: StorageOption = None, as_json: JsonOption = False
) -> None:
    """Store them again, one by one; what the storage takes leaves the quarantine."""
    import asyncio

    from llmops_core.cli.console import masked, print_json
    from llmops_core.parts import make_storage
    from llmops_core.plugins import PluginHost
    from llmops_core.render.text import plural, visible

    url, kept = _kept(storage)
    chosen = [] if kept is None else _chosen(kept, ids)
    failed: dict[str, str] = {}
    if kept is not None and chosen:
        made = make_storage(PluginHost(), url)
        failed = asyncio.run(_store(made, kept, chosen))
    stored = len(chosen) - len(failed)
    if as_json:
        print_json({"storage": masked(url), "stored": stored, "refused": failed})
    else:
        typer.echo(f"Stored {plural(stored, 'span')}.")
        for span_id, reason in failed.items():
            typer.echo(visible(f"✗ {span_id}: {reason}"))
    if failed:
        raise typer.Exit(1)


@quarantine.command()
def drop(
    ids: IdsArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is kept.")] = False,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete spans from the quarantine; they are lost then."""
    from llmops_core.cli.console import masked, print_json
    from llmops_core.errors import ConfigError
    from llmops_core.render.text import plural

    if bool(ids) == everything:
        raise ConfigError("llmops quarantine drop", "expected span ids, or --all")
    url, kept = _kept(storage)
    chosen = [] if kept is None else _chosen(kept, ids)
    dropped = 0 if kept is None else kept.remove(refused.span.span_id for refused in chosen)
    if as_json:
        print_json({"storage": masked(url), "dropped": dropped})
    else:
        typer.echo(f"Dropped {plural(dropped, 'span')}.")


def _kept(storage: str | None) -> tuple[str, Quarantine | None]:
    from llmops_core.cli.journals import journal_root
    from llmops_core.config import storage_url
    from llmops_core.journal.quarantine import Quarantine

    url = storage or storage_url()
    root = journal_root(url)
    return url, None if root is None else Quarantine(root)


def _folder(kept: Quarantine | None) -> Path | None:
    return None if kept is None else kept.folder


def _chosen(kept: Quarantine, ids: Iterable[str] | None) -> list[Refused]:
    from llmops_core.errors import ConfigError

    found = {refused.span.span_id: refused for refused in kept}
    if not ids:
        return list(found.values())
    for span_id in ids:
        if span_id not in found:
            raise ConfigError(
                f"no span {span_id!r} in quarantine", do="see `llmops quarantine list`"
            )
    return [found[span_id] for span_id in dict.fromkeys(ids)]


def _described(refused: Refused) -> dict[str, Any]:
    from llmops_core.cli.console import iso

    span = refused.span
    return {
        "span_id": span.span_id,
        "trace_id": span.trace_id,
        "kind": span.kind,
        "name": span.name,
        "start_time": iso(span.start_time),
        "refused_at": iso(refused.time),
        "error_type": refused.error_type,
        "reason": refused.reason,
    }


async def _store(storage: Storage, kept: Quarantine, chosen: list[Refused]) -> dict[str, str]:
    """Store spans, each as the range that it was refused as; return those that are refused again."""
    from llmops_core.batch import SpanBatch
    from llmops_core.errors import PermanentError

    failed = {}
    await storage.open()
    try:
        for span in (refused.span for refused in chosen):
            seq = span.seq or 0
            batch = SpanBatch([span], writer_id=span.writer_id or "", first_seq=seq, last_seq=seq)
            try:
                await storage.write(batch)
            except PermanentError as error:
                failed[span.span_id] = error.found
            else:
                kept.remove([span.span_id])
    finally:
        await storage.close()
    return failed
