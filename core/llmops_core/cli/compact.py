"""``llmops compact``: merge the small files of closed days."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_core.cli.options import JsonOption, StorageOption

if TYPE_CHECKING:
    from llmops_core.storage.parquet.compaction import CompactionReport, Compactor
    from llmops_core.storage.parquet.mirror import RemoteCompactor

    AnyCompactor = Compactor | RemoteCompactor

__all__ = ["compact"]


def compact(
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="Storage to compact, as for --storage.")
    ] = None,
    storage: StorageOption = None,
    today: Annotated[
        bool, typer.Option("--today", help="Also days that spans are still written to.")
    ] = False,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace", metavar="SECONDS", help="Keep replaced files so long; 10 if unset."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Merge the small Parquet files of closed days into few large ones."""
    import msgspec

    from llmops_core.cli.console import masked, print_json
    from llmops_core.config import storage_url
    from llmops_core.render.text import visible

    url = url or storage or storage_url()
    report = _run(_compactor(url, today, grace), quiet=as_json)
    if as_json:
        print_json({"storage": masked(url), **msgspec.structs.asdict(report)})
    else:
        for line in _lines(report):
            typer.echo(visible(line))
    if report.failed:
        raise typer.Exit(1)


def _compactor(url: str, today: bool, grace: float | None) -> AnyCompactor:
    from llmops_core.cli.console import check_written, masked
    from llmops_core.errors import ConfigError
    from llmops_core.parts import make_storage
    from llmops_core.plugins import PluginHost
    from llmops_core.schema import import_arrow
    from llmops_core.storage.parquet.compaction import GRACE_SECONDS

    check_written(url)
    storage = make_storage(PluginHost(), url)
    make = getattr(storage, "compactor", None)
    if make is None:
        raise ConfigError(
            f"storage {masked(url)!r} has no files to merge",
            "expected Parquet, in a folder or in an object store",
            "write `llmops compact parquet:./llmops_data`",
        )
    if grace is not None and not 1 <= grace <= 86_400:
        raise ConfigError(f"--grace {grace:g}", "expected seconds from 1 to 86,400")
    import_arrow()
    compactor: AnyCompactor = make(
        today=today, grace_seconds=GRACE_SECONDS if grace is None else grace
    )
    return compactor


def _run(compactor: AnyCompactor, *, quiet: bool) -> CompactionReport:
    """Run the steps, and tell a person who watches how far they are."""
    shown, told = not quiet and sys.stderr.isatty(), ""
    for wait in compactor.steps():
        report = compactor.report
        text = f"merged {report.files_before:,} files into {report.files_after:,}"
        if wait:
            text += ", waiting for readers of the old ones"
        if shown and text != told:
            typer.echo(f"\r\x1b[K{text} …", nl=False, err=True)
            told = text
        if wait:
            time.sleep(wait)
    if told:
        typer.echo("\r\x1b[K", nl=False, err=True)
    return compactor.report


def _lines(report: CompactionReport) -> list[str]:
    from llmops_core.render.text import plural

    if report.files_before:
        merged = f"{plural(report.files_before, 'file')} of {plural(report.days, 'day')}"
        sizes = f"{report.bytes_before:,} → {report.bytes_after:,} bytes"
        lines = [f"Merged {merged} into {report.files_after:,}: {report.spans:,} spans, {sizes}."]
    else:
        lines = ["Nothing to merge."]
    if report.deleted:
        lines.append(f"Deleted {plural(report.deleted, 'replaced file')}.")
    if report.swept:
        lines.append(f"Removed {plural(report.swept, 'file')} that a killed compaction left.")
    reasons = {"newer": "written by a newer version", "damaged": "cannot be read"}
    for reason, count in report.left_alone.items():
        lines.append(f"Left alone: {plural(count, 'file')} ({reasons.get(reason, reason)}).")
    lines.extend(f"✗ failed: {failure}" for failure in report.failed)
    return lines
