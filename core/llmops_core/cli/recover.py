"""``llmops recover``: store what writers that died left in their journals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from llmops_core.cli.options import JsonOption, StorageOption

if TYPE_CHECKING:
    from llmops_core.journal.recovery import RecoveryReport

__all__ = ["recover"]


def recover(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Store the spans that dead processes left in their journals."""
    import asyncio

    import msgspec

    from llmops_core.cli.console import masked, print_json
    from llmops_core.config import storage_url
    from llmops_core.render.text import visible

    url = storage or storage_url()
    report = asyncio.run(_recover(url))
    if as_json:
        print_json({"storage": masked(url), **msgspec.structs.asdict(report)})
    else:
        for line in _lines(report):
            typer.echo(visible(line))
    if report.failed:
        raise typer.Exit(1)


async def _recover(url: str) -> RecoveryReport:
    from llmops_core.cli.console import check_written
    from llmops_core.journal.recovery import RecoveryReport
    from llmops_core.journal.recovery import recover as recover_journals
    from llmops_core.materials import journal_root_of
    from llmops_core.parts import make_storage, storage_name
    from llmops_core.plugins import PluginHost

    check_written(url)
    storage = make_storage(PluginHost(), url)
    root = journal_root_of(storage, storage_name(url))
    if root is None:
        return RecoveryReport()  # it keeps nothing, so nothing was left
    await storage.open()
    try:
        return await recover_journals(root, storage.write)
    finally:
        await storage.close()


def _lines(report: RecoveryReport) -> list[str]:
    from llmops_core.render.text import plural

    stored = f"{plural(report.spans, 'span')} of {plural(report.writers, 'dead writer')}"
    lines = [f"Stored {stored}."]
    if report.incomplete:
        lines.append(f"{plural(report.incomplete, 'span')} never ended: stored as incomplete.")
    if report.quarantined:
        refused = plural(report.quarantined, "span")
        lines.append(f"Refused by the storage: {refused}; see `llmops quarantine list`.")
    if report.damaged_records:
        damaged = plural(report.damaged_records, "damaged record")
        lines.append(f"Left out: {damaged}, {report.damaged_bytes:,} bytes; a copy is kept.")
    if report.skipped_living:
        lines.append(f"Left alone: {plural(report.skipped_living, 'writer')} still alive.")
    lines.extend(f"✗ failed: {failure}" for failure in report.failed)
    return lines
