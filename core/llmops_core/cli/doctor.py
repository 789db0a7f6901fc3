"""``llmops doctor``: what is installed, what is hooked, what is configured, and whether it works."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmops_core.cli.options import JsonOption, StorageOption

__all__ = ["doctor"]


def doctor(
    storage: StorageOption = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Leave a check out, such as hooks; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check frameworks, other tools, storage, journals, plugins and settings.

    Exits with 1 where something is wrong (✗). To see what `llmops run` would hook, the frameworks are
    imported and run once, in a process of its own that stores and sends nothing: --without hooks
    saves these seconds.
    """
    from llmops_core.cli.console import print_json
    from llmops_core.cli.doctor_lines import lines, problems

    report = _report(storage, without or [])
    wrong = problems(report)
    if as_json:
        print_json({**report, "problems": wrong})
    else:
        for line in lines(report, wrong):
            typer.echo(line)
    if wrong:
        raise typer.Exit(1)


def _report(storage: str | None, without: list[str]) -> dict[str, Any]:
    from llmops_core.cli import doctor_setup, doctor_state
    from llmops_core.config import storage_url
    from llmops_core.errors import LLMOpsError

    try:
        url = storage or storage_url()
    except LLMOpsError as error:  # told as the storage's error
        url, broken = "", str(error)
    else:
        broken = ""
    plugins = doctor_setup.Enabled(url)
    state, models = doctor_state.storage_and_models(url, storage, broken)
    journals = doctor_state.journals(url)
    return {
        "python": doctor_setup.python(),
        "checks": plugins.checks(without),
        "storage": state,
        "models": models,
        "journals": journals,
        "compaction": doctor_state.compaction(url),
        "plugins": plugins.report(journals["writers"]),
        "capture": doctor_setup.capture(),
        "breakers": doctor_setup.breakers(),
        "settings": doctor_setup.settings(),
        "environment": doctor_setup.environment(),
    }
