"""``llmops doctor``: what is installed, what is configured, and whether it works."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Final

import typer

from llmops_core.cli.options import JsonOption, StorageOption

__all__ = ["doctor"]

_PACKAGES: Final = (
    "llmops-integrations",
    "langchain-core",
    "langgraph",
    "crewai",
    "pyarrow",
    "duckdb",
)


def doctor(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Check versions, storage, journals, plugins and settings; exit 1 if the storage fails."""
    from llmops_core.cli.console import print_json

    report = _report(storage)
    if as_json:
        print_json(report)
    else:
        for line in _lines(report):
            typer.echo(line)
    if not report["storage"]["healthy"]:
        raise typer.Exit(1)


#: Any of these turns CrewAI's own telemetry off; the core knows the names, not the framework.
_CREWAI_SWITCHES: Final = (
    "CREWAI_DISABLE_TELEMETRY",
    "CREWAI_DISABLE_TRACKING",
    "OTEL_SDK_DISABLED",
)
#: What CrewAI takes for yes; releases without the package crewai-core know the first alone.
_CREWAI_YES: Final = ("true", "1", "yes", "on")


def _report(storage: str | None) -> dict[str, Any]:
    from llmops_core.cli.journals import journal_problem, journal_root, journal_states
    from llmops_core.config import storage_url
    from llmops_core.plugins import BUILTINS, installed_plugins

    url = storage or storage_url()
    try:
        root = journal_root(url)
    except Exception:  # told as the storage's error
        root = None
    return {
        "python": {"version": sys.version.split()[0], "platform": sys.platform},
        "packages": _versions(),
        "crewai_telemetry": _crewai_telemetry(),
        "storage": _storage(url, storage),
        "journals": {
            "root": str(root) if root else None,
            "problem": journal_problem(root),
            "writers": [state._asdict() for state in journal_states(root)],
        },
        "compaction": _compaction(url),
        "plugins": {
            "builtin": {kind: sorted(names) for kind, names in BUILTINS.items()},
            "installed": installed_plugins(),
        },
        "settings": _settings(),
        "environment": _environment(),
    }


def _versions() -> dict[str, str | None]:
    import importlib.metadata

    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _crewai_telemetry() -> dict[str, Any] | None:
    """Return whether CrewAI's own telemetry is on, and what turns it off; None without CrewAI."""
    if _versions()["crewai"] is None:
        return None
    yes = _CREWAI_YES if _has("crewai-core") else _CREWAI_YES[:1]
    off = [n for n in _CREWAI_SWITCHES if os.environ.get(n, "").strip().lower() in yes]
    return {"on": not off, "turned_off_by": off}


def _has(package: str) -> bool:
    import importlib.metadata

    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _storage(url: str, option: str | None) -> dict[str, Any]:
    from llmops_core.cli.console import masked, nothing_written, reading
    from llmops_core.sources import default_storage

    source = "--storage" if option else default_storage().source.replace("default", "the default")
    found: dict[str, Any] = {"url": masked(url), "source": source, "healthy": True, "error": None}
    if nothing_written(url):
        return {**found, "spans": 0, "newest": None}
    try:
        with reading(url) as reader:
            row = reader.query(aggregates=["count", "max:end_time"]).to_pylist()
    except Exception as error:  # whatever fails is told
        return {**found, "healthy": False, "error": masked(str(error) or type(error).__name__)}
    found["spans"] = row[0]["count"] if row else 0
    found["newest"] = row[0]["max_end_time"] if row else None
    return found


def _compaction(url: str) -> dict[str, Any] | None:
    """Return how many files wait to be merged and who does it; None where there are no files."""
    from pathlib import Path

    from llmops_core.parts import make_storage
    from llmops_core.plugins import PluginHost
    from llmops_core.storage.parquet.compaction import small_files
    from llmops_core.storage.parquet.lock import owner

    try:
        storage = make_storage(PluginHost(), url)
        folder = getattr(storage, "folder", None)
        if not hasattr(storage, "compaction") or not isinstance(folder, Path):
            return None
        files, days = small_files(folder)
        return {"files": files, "days": days, "owner": owner(folder)}
    except Exception:  # told as the storage's error
        return None


def _settings() -> dict[str, Any]:
    """Return each setting's value where a program gives none, and where it comes from."""
    import msgspec

    from llmops_core.config import Settings
    from llmops_core.errors import ConfigError
    from llmops_core.sources import resolve_settings

    try:
        settings, sources = resolve_settings({})
    except ConfigError as error:  # told, beside the defaults
        settings, sources = Settings(), {}
        return {
            **{
                n: {"value": v, "source": "default"}
                for n, v in msgspec.structs.asdict(settings).items()
            },
            "error": {"value": str(error), "source": "set-up"},
        }
    return {
        name: {"value": value, "source": sources[name]}
        for name, value in msgspec.structs.asdict(settings).items()
    }


def _environment() -> dict[str, Any]:
    from llmops_core.cli.console import masked
    from llmops_core.sources import variables

    read = variables()
    return {
        name: {"value": masked(value), "read": name in read}
        for name, value in sorted(os.environ.items())
        if name.startswith("LLMOPS_")
    }


def _telemetry_lines(telemetry: dict[str, Any] | None) -> Iterator[str]:
    if telemetry is None:
        return
    said = "on: set CREWAI_DISABLE_TELEMETRY=true to turn it off"
    if not telemetry["on"]:
        said = f"off ({', '.join(telemetry['turned_off_by'])})"
    yield f"            crewai's own telemetry is {said}"


def _lines(report: dict[str, Any]) -> Iterator[str]:
    from llmops_core.cli.console import wire
    from llmops_core.render.text import visible

    yield f"python      {report['python']['version']} on {report['python']['platform']}"
    for name, version in report["packages"].items():
        yield f"            {name} {version or '(not installed)'}"
    yield from _telemetry_lines(report["crewai_telemetry"])
    state = report["storage"]
    yield f"storage     {visible(state['url'])} (from {state['source']})"
    if state["healthy"]:
        newest = wire(state["newest"]) if state["newest"] else "none yet"
        yield f"            ✓ answers: {state['spans']:,} spans, newest {newest}"
    else:
        yield f"            ✗ {visible(state['error'])}"
    yield f"journals    {visible(report['journals']['root'] or 'none')}"
    if report["journals"]["problem"]:
        yield f"            ✗ {visible(report['journals']['problem'])}"
    for writer in report["journals"]["writers"]:
        yield _journal_line(writer)
        yield from _trouble_lines(writer["trouble"])
    if not report["journals"]["writers"]:
        yield "            none: nothing waits to be stored"
    yield from _compaction_lines(report["compaction"])
    for kind, names in report["plugins"]["builtin"].items():
        yield f"{'plugins' if kind == 'storage' else '':<12}built-in {kind}: {', '.join(names)}"
    installed = [f"{name} ({dist})" for name, dist in report["plugins"]["installed"].items()]
    yield f"            installed: {visible(', '.join(installed)) or 'none'}; enabled where named"
    yield from _setting_lines(report)


def _setting_lines(report: dict[str, Any]) -> Iterator[str]:
    from llmops_core.render.text import visible

    yield "settings    defaults; Monitor(name=value), a variable or a file changes one"
    for name, setting in report["settings"].items():
        told = "" if setting["source"] == "default" else f"   (from {visible(setting['source'])})"
        yield f"            {name} = {visible(str(setting['value']))}{told}"
    which = "that begin with LLMOPS_" if report["environment"] else "none that begins with LLMOPS_"
    yield f"variables   {which}"
    for name, variable in report["environment"].items():
        note = "" if variable["read"] else "   ? not a variable that is read"
        yield f"            {visible(name)}={visible(variable['value'])}{note}"


def _compaction_lines(found: dict[str, Any] | None) -> Iterator[str]:
    from llmops_core.render.text import plural, visible

    if found is None:
        return
    owner, text = found["owner"], "closed days have no files to merge"
    if owner is not None:
        text = f"process {owner.get('pid', '?')} is at it"
    elif found["files"]:
        many = f"{plural(found['files'], 'small file')} in {plural(found['days'], 'closed day')}"
        text = f"{many}: merged when a monitor is idle, or run: llmops compact"
    yield f"compaction  {visible(text)}"


def _trouble_lines(trouble: dict[str, Any]) -> Iterator[str]:
    """Say what a monitor wrote of itself. It is a file: each part may be missing or odd."""
    from llmops_core.render.text import visible

    storage = trouble.get("storage")
    if isinstance(storage, dict):
        state, seconds = storage.get("state"), storage.get("seconds")
        last = f", last with {storage['last_error']}" if storage.get("last_error") else ""
        yield _trouble(f"storage {state} for {seconds} s{last}; its spans wait in the journal")
    for name in _listed(trouble.get("cut_off")):
        yield _trouble(f"plugin {name} is cut off; restart the program to try it again")
    for what, reasons in _items(trouble.get("dropped")):
        for reason, count in _items(reasons):
            yield _trouble(f"{what} dropped: {count} ({reason})")
    if trouble.get("content_shed"):
        yield _trouble(f"events without their content: {trouble['content_shed']} (overload)")
    yield from map(_trouble, _journal_troubles(trouble.get("journal")))
    for name, worker in _items(trouble.get("workers")):
        if isinstance(worker, dict):
            stuck = "; it does not move" if worker.get("stuck") else ""
            yield _trouble(f"thread {name} began anew {worker.get('restarts')} times{stuck}")
    for what, count in _items(trouble.get("failures")):
        yield f"              ? {visible(f'{what}: {count} times')}"


def _journal_troubles(journal: Any) -> Iterator[str]:
    told = dict(_items(journal))
    if told.get("gone"):
        yield "its journal's folder is gone and cannot be made again; spans stay in memory"
    if told.get("remade"):
        yield f"its journal's folder was gone and was made again: {told['remade']} times"
    if told.get("full"):
        yield "its journal is full; spans stay in memory"
    if told.get("unjournaled"):
        yield f"spans that never were in the journal: {told['unjournaled']}"


def _trouble(text: str) -> str:
    from llmops_core.render.text import visible

    return f"              ✗ {visible(text)}"


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _journal_line(writer: dict[str, Any]) -> str:
    from llmops_core.render.text import plural, visible

    pending = writer["pending_spans"]
    parts = [
        "living" if writer["living"] else "dead",
        f"{writer['bytes']:,} bytes",
        "too large to count" if pending is None else f"{plural(pending, 'span')} to store",
        f"{writer['open_spans']:,} open",
    ]
    if writer["damaged_records"]:
        parts.append(plural(writer["damaged_records"], "damaged record"))
    if not writer["living"] and pending != 0:
        parts.append("run: llmops recover")
    return f"            {visible(writer['writer_id'])}: {', '.join(parts)}"
