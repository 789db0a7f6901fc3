"""``llmops recover``: store what writers that died left in their journals."""

from __future__ import annotations

import typer

from llmops_core.cli.options import JsonOption, StorageOption

__all__ = ["recover"]


def recover(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Store the spans that dead processes left in their journals."""
    import msgspec

    from llmops_core.cli.console import masked, print_json
    from llmops_core.config import storage_url
    from llmops_core.recovery import recover_url
    from llmops_core.render_text import plural, visible

    url = storage or storage_url()
    report = recover_url(url)
    if as_json:
        print_json({"storage": masked(url), **msgspec.structs.asdict(report)})
        return
    typer.echo(
        f"Stored {plural(report.spans, 'span')} of {plural(report.writers, 'dead writer')} "
        f"in {visible(masked(url))}."
    )
    if report.incomplete:
        typer.echo(f"{plural(report.incomplete, 'span')} never ended and became incomplete.")
    if report.damaged_records:
        lost = f"{plural(report.damaged_records, 'record')}, {plural(report.damaged_bytes, 'byte')}"
        typer.echo(f"Damaged and left out: {lost}.")
    if report.skipped_living:
        typer.echo(f"Left alone: {plural(report.skipped_living, 'writer')} still alive.")
