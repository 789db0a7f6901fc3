"""``llmops copy``: spans from one storage to another."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_core.cli.options import JsonOption, SinceOption

if TYPE_CHECKING:
    from llmops_core.copying import CopyReport
    from llmops_core.protocols import Storage

__all__ = ["copy"]

#: How often a person who watches is told, in seconds.
_TOLD_SECONDS = 0.2


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Storage to read.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Storage to write to.")],
    since: SinceOption = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="As for --since.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the spans that DST lacks from SRC. Run it again to go on after an interruption."""
    import asyncio

    import msgspec

    from llmops_core.cli.console import check_written, masked, print_json
    from llmops_core.cli.options import moment
    from llmops_core.render.text import visible
    from llmops_core.schema import import_arrow

    check_written(source)
    from_storage, to_storage = _storages(source, target)
    begin, end = moment("--since", since), moment("--until", until)
    import_arrow()
    progress = _Progress(shown=not as_json and sys.stderr.isatty())
    try:
        report = asyncio.run(_copy(from_storage, to_storage, begin, end, progress))
    finally:
        progress.clear()
    if as_json:
        names = {"source": masked(source), "target": masked(target)}
        print_json({**names, **msgspec.structs.asdict(report)})
    else:
        for line in _lines(report):
            typer.echo(visible(line))
    if report.refused_spans:
        raise typer.Exit(1)


def _storages(source: str, target: str) -> tuple[Storage, Storage]:
    from llmops_core.cli.console import masked
    from llmops_core.errors import ConfigError
    from llmops_core.parts import make_storage
    from llmops_core.plugins import PluginHost

    host = PluginHost()
    made = make_storage(host, source), make_storage(host, target)
    folders = [getattr(storage, "folder", None) for storage in made]
    resolved = {folder.resolve() for folder in folders if isinstance(folder, Path)}
    if source == target or (len(resolved) == 1 and None not in folders):
        raise ConfigError(f"both are {masked(source)}", "expected two storages")
    if getattr(made[1], "volatile", False):
        raise ConfigError(f"{masked(target)} keeps nothing", "expected a storage that does")
    return made


async def _copy(
    source: Storage, target: Storage, since: int | None, until: int | None, progress: _Progress
) -> CopyReport:
    from llmops_core.copying import copy_spans

    if hasattr(source, "read_only"):
        source.read_only = True
    await source.open()
    try:
        await target.open()
        try:
            return await copy_spans(source, target, since=since, until=until, told=progress)
        finally:
            await target.close()
    finally:
        await source.close()


class _Progress:
    """One line on stderr, for a person who watches."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._began = time.monotonic()
        self._told = float("-inf")

    def __call__(self, report: CopyReport) -> None:
        now = time.monotonic()
        if not self._shown or now - self._told < _TOLD_SECONDS:
            return
        self._told = now
        share = f" ({report.seen / report.spans:.0%})" if report.spans else ""
        rate = report.copied / max(now - self._began, 0.001)
        text = f"{report.seen:,} of {report.spans:,} spans{share}, {report.copied:,} copied"
        typer.echo(f"\r\x1b[K{text}, {rate:,.0f} a second …", nl=False, err=True)

    def clear(self) -> None:
        """Leave the line to what comes next."""
        if self._told > 0:
            typer.echo("\r\x1b[K", nl=False, err=True)


def _lines(report: CopyReport) -> list[str]:
    from llmops_core.render.text import plural

    lines = [f"Copied {plural(report.copied, 'span')}."]
    if report.already_there:
        lines.append(f"Already there: {plural(report.already_there, 'span')}.")
    if report.refused_spans:
        lines.append(f"✗ refused: {plural(report.refused_spans, 'span')}")
    lines.extend(f"  {span_id}: {reason}" for span_id, reason in report.refused.items())
    return lines
