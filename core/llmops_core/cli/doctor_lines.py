"""``llmops doctor`` for people: one line a finding, ``?`` for a note and ``✗`` for a problem."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from llmops_core.protocols import Finding

__all__ = ["lines", "problems", "trouble"]

_MARKS: Final = {"ok": "", "note": "? ", "problem": "✗ "}
_INDENT: Final = 12
#: Models and failures that are shown; ``--json`` has all of them.
_SHOWN: Final = 20
#: A failure of ``instrument()``: a framework of that program is not recorded, or not wholly.
_UNHOOKED: Final = "handler.instrument "


def lines(report: dict[str, Any], wrong: list[str]) -> Iterator[str]:
    """Yield the report as text; whatever came from elsewhere acts on no terminal."""
    from llmops_core.render.text import plural, visible

    for title, findings in _sections(report):
        shown = title
        for finding in findings:
            text = finding.text.lstrip(" ")
            deep = len(finding.text) - len(text)  # a line below another one
            yield f"{shown:<{_INDENT + deep}}{_MARKS[finding.level]}{visible(text)}"
            shown = ""
    said = "nothing is wrong" if not wrong else f"{plural(len(wrong), 'problem')}: look for ✗"
    yield f"{'found':<{_INDENT}}{said}"


def problems(report: dict[str, Any]) -> list[str]:
    """Return the text of each problem, with the section that it is in."""
    return [
        f"{title}: {finding.text.strip()}"
        for title, findings in _sections(report)
        for finding in findings
        if finding.level == "problem"
    ]


def _sections(report: dict[str, Any]) -> Iterator[tuple[str, list[Finding]]]:
    python = report["python"]
    ours = python["llmops-integrations"] or "(not installed)"
    said = f"{python['version']} on {python['platform']}, llmops-integrations {ours}"
    yield "python", [Finding(said)]
    for name, found in report["checks"].items():
        yield name, [Finding(f["text"], f["level"]) for f in found]
    yield "storage", list(_storage(report["storage"]))
    healthy = report["storage"]["healthy"]
    unknown = [Finding("not known: the storage does not answer")]
    yield "models", list(_models(report["models"])) if healthy else unknown
    yield "journals", list(_journals(report["journals"]))
    yield "compaction", list(_compaction(report["compaction"]))
    yield "plugins", list(_plugins(report["plugins"]))
    yield "capture", list(_capture(report["capture"]))
    yield "breakers", list(_breakers(report["breakers"]))
    yield "settings", list(_settings(report["settings"]))
    yield "variables", list(_variables(report["environment"]))


# ---- the storage, and what lies before it ----


def _storage(state: dict[str, Any]) -> Iterator[Finding]:
    from llmops_core.cli.console import wire

    yield Finding(f"{state['url']} (from {state['source']})")
    if state["healthy"]:
        newest = wire(state["newest"]) if state["newest"] else "none yet"
        yield Finding(f"✓ answers: {state['spans']:,} spans, newest {newest}")
    else:
        yield Finding(state["error"], "problem")


def _models(models: list[dict[str, Any]]) -> Iterator[Finding]:
    from llmops_core.render.text import plural

    for model in models[:_SHOWN]:
        provider = f" ({model['provider']})" if model["provider"] else ""
        bare = model["without_usage"]
        usage = f", {bare:,} of them without usage" if bare else ""
        yield Finding(f"{model['model']}{provider}: {plural(model['calls'], 'call')}{usage}")
    if len(models) > _SHOWN:
        yield Finding(f"and {len(models) - _SHOWN:,} more: --json has them")
    yield Finding(
        "all of them are unpriced: this release has no prices" if models else "none was called yet"
    )


def _journals(journals: dict[str, Any]) -> Iterator[Finding]:
    from llmops_core.render.text import plural

    yield Finding(journals["root"] or "none")
    if journals["problem"]:
        yield Finding(journals["problem"], "problem")
    for writer in journals["writers"]:
        yield from _writer(writer)
        yield from trouble(writer["trouble"])
    if not journals["writers"]:
        yield Finding("none: nothing waits to be stored")
    if journals["quarantined"]:
        many = plural(journals["quarantined"], "span")
        yield Finding(f"{many} in quarantine: see llmops quarantine list", "problem")


def _writer(writer: dict[str, Any]) -> Iterator[Finding]:
    from llmops_core.render.text import plural

    pending = writer["pending_spans"]
    parts = [
        "living" if writer["living"] else "dead",
        f"{writer['bytes']:,} bytes",
        "too large to count" if pending is None else f"{plural(pending, 'span')} to store",
        f"{writer['open_spans']:,} open",
    ]
    waits = not writer["living"] and pending != 0
    if waits:
        parts.append("run: llmops recover")
    yield Finding(f"{writer['writer_id']}: {', '.join(parts)}", "note" if waits else "ok")
    if writer["damaged_records"]:
        yield _of_writer(plural(writer["damaged_records"], "damaged record"), "problem")


def trouble(told: dict[str, Any]) -> Iterator[Finding]:
    """Say what a monitor wrote of itself. It is a file: each part may be missing or odd."""
    storage = told.get("storage")
    if isinstance(storage, dict):
        state, seconds = storage.get("state"), storage.get("seconds")
        last = f", last with {storage['last_error']}" if storage.get("last_error") else ""
        text = f"storage {state} for {seconds} s{last}; its spans wait in the journal"
        yield _of_writer(text, "problem")
    for name in _listed(told.get("cut_off")):
        text = f"plugin {name} is cut off; restart the program to try it again"
        yield _of_writer(text, "problem")
    for what, reasons in _items(told.get("dropped")):
        for reason, count in _items(reasons):
            yield _of_writer(f"{what} dropped: {count} ({reason})", "problem")
    if told.get("content_shed"):
        text = f"events without their content: {told['content_shed']} (overload)"
        yield _of_writer(text, "problem")
    for text in _journal_trouble(dict(_items(told.get("journal")))):
        yield _of_writer(text, "problem")
    for text in _thread_trouble(_items(told.get("workers"))):
        yield _of_writer(text, "problem")
    for limit, count in _items(told.get("stopped")):
        yield _of_writer(f"runs stopped by the breaker {limit}: {count}", "note")
    for what, count in _items(told.get("failures"))[:_SHOWN]:
        unhooked = str(what).startswith(_UNHOOKED)
        yield _of_writer(f"{what}: {count} times", "problem" if unhooked else "note")


def _thread_trouble(workers: list[tuple[Any, Any]]) -> Iterator[str]:
    for name, worker in workers:
        if isinstance(worker, dict):
            stuck = "; it does not move" if worker.get("stuck") else ""
            yield f"thread {name} began anew {worker.get('restarts')} times{stuck}"


def _journal_trouble(told: dict[str, Any]) -> Iterator[str]:
    if told.get("gone"):
        yield "its journal's folder is gone and cannot be made again; spans stay in memory"
    if told.get("remade"):
        yield f"its journal's folder was gone and was made again: {told['remade']} times"
    if told.get("full"):
        yield "its journal is full; spans stay in memory"
    if told.get("unjournaled"):
        yield f"spans that never were in the journal: {told['unjournaled']}"


def _of_writer(text: str, level: Any) -> Finding:
    """A line below a writer's."""
    return Finding(f"  {text}", level)


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _compaction(found: dict[str, Any] | None) -> Iterator[Finding]:
    from llmops_core.render.text import plural

    if found is None:
        return
    owner, text = found["owner"], "closed days have no files to merge"
    if owner is not None:
        text = f"process {owner.get('pid', '?')} is at it"
    elif found["files"]:
        many = f"{plural(found['files'], 'small file')} in {plural(found['days'], 'closed day')}"
        text = f"{many}: merged when a monitor is idle, or run: llmops compact"
    yield Finding(text)


# ---- the set-up ----


def _plugins(plugins: dict[str, Any]) -> Iterator[Finding]:
    for kind, names in plugins["builtin"].items():
        yield Finding(f"built-in {kind}: {', '.join(names)}")
    installed = [f"{name} ({dist})" for name, dist in plugins["installed"].items()]
    yield Finding(f"installed: {', '.join(installed) or 'none'}; enabled where named")
    for plugin in plugins["enabled"]:
        version = f" ({plugin['version']})" if plugin["version"] else ""
        gives = ", ".join([*plugin["hooks"], *plugin["parts"]])
        yield Finding(f"enabled: {plugin['name']}{version}: {gives}")
        for what, count in list(plugin["failures"].items())[:_SHOWN]:
            yield Finding(f"  failed: {what}: {count} times", "note")
    for error in plugins["errors"]:
        yield Finding(error, "problem")


def _capture(capture: dict[str, Any]) -> Iterator[Finding]:
    source = "" if capture["source"] == "default" else f" (from {capture['source']})"
    yield Finding(
        f"texts of inputs and outputs, up to {capture['content_limit']:,} characters of each: "
        f"content_limit{source}"
    )
    yield Finding("nothing is redacted: this release has no redactor", "note")


def _breakers(limits: dict[str, Any]) -> Iterator[Finding]:
    if not limits:
        yield Finding("off: no limit is set outside of code")
    for name, limit in limits.items():
        level: Any = "problem" if name == "error" else "ok"
        yield Finding(f"{name} = {limit['value']}   (from {limit['source']})", level)


def _settings(settings: dict[str, Any]) -> Iterator[Finding]:
    yield Finding("defaults; Monitor(name=value), a variable or a file changes one")
    for name, setting in settings.items():
        told = "" if setting["source"] == "default" else f"   (from {setting['source']})"
        level: Any = "problem" if name == "error" else "ok"
        yield Finding(f"{name} = {setting['value']}{told}", level)


def _variables(variables: dict[str, Any]) -> Iterator[Finding]:
    which = "that begin with LLMOPS_" if variables else "none that begins with LLMOPS_"
    yield Finding(which)
    for name, variable in variables.items():
        text = f"{name}={variable['value']}"
        if variable["read"]:
            yield Finding(text)
        else:
            yield Finding(f"{text}   is not a variable that is read", "note")
