"""What ``llmops doctor`` says of the set-up: plugins, their checks, settings and variables."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

__all__ = ["Enabled", "breakers", "capture", "environment", "python", "settings"]

#: How long a check may take; ``hooks`` imports every framework, on a machine that may be busy.
_CHECK_SECONDS: Final = 120.0
_SECRET_NAME: Final = re.compile(r"(?i)_(key|token|secret|password|credentials?)$")
_SECRET_PART: Final = re.compile(
    r"(?i)([a-z_-]*(?:password|passwd|pwd|secret|token|key|credential)[a-z_-]*=)[^&#;,\s]*"
)


def python() -> dict[str, Any]:
    """Return the interpreter, and the release of this distribution."""
    import importlib.metadata

    try:
        ours: str | None = importlib.metadata.version("llmops-integrations")
    except importlib.metadata.PackageNotFoundError:
        ours = None
    return {
        "version": sys.version.split()[0],
        "platform": sys.platform,
        "executable": sys.executable,
        "llmops-integrations": ours,
    }


class Enabled:
    """The plugins and parts that the configuration names, loaded as a monitor loads them."""

    def __init__(self, url: str) -> None:
        from llmops_core.parts import make_parts, make_storage
        from llmops_core.plugins import PluginHost
        from llmops_core.sources import part_lists

        self.host = PluginHost()
        self.errors: list[str] = []
        self._try(lambda: url and make_storage(self.host, url), told=False)  # the storage's error
        named = self._try(part_lists, told=False) or {}  # an error of the settings
        for kind in ("plugins", "exporters", "collectors"):
            if kind not in named:
                continue
            for name in named[kind].value:
                where = f" ({kind} from {named[kind].source})"
                if kind == "plugins":
                    self._try(partial(self.host.load, name), where)
                else:
                    sort = kind.removesuffix("s")
                    self._try(partial(make_parts, self.host, sort, [name]), where)

    def _try(self, load: Callable[[], Any], where: str = "", *, told: bool = True) -> Any:
        try:
            return load()
        except Exception as error:
            if told:
                self.errors.append(_hidden(f"{error}{where}"))
            return None

    def report(self, writers: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Return built-in parts, what is installed, and what is enabled, with its failures."""
        from llmops_core.plugins import BUILTINS, installed_plugins

        installed = installed_plugins()
        counted = _failures(writers)
        enabled = []
        for name, (hooks, parts) in self.host.enabled().items():
            own = {name, *(part.partition(" ")[2] for part in parts)}
            failed = {what: n for what, n in counted.items() if what.partition(".")[0] in own}
            version = installed.get(name)
            about = {"name": name, "version": version, "hooks": hooks, "parts": parts}
            enabled.append({**about, "failures": failed})
        return {
            "builtin": {kind: sorted(names) for kind, names in BUILTINS.items()},
            "installed": installed,
            "enabled": enabled,
            "errors": self.errors,
        }

    def checks(self, without: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Run the built-in checks, and those of the enabled plugins; return findings by check."""
        from llmops_core.errors import ConfigError
        from llmops_core.plugins import BUILTINS

        names = list(BUILTINS["check"])
        names += [name for name in self.host.registry.names("check") if name not in names]
        for name in without:
            if name not in names:
                raise ConfigError(f"--without {name!r}", "expected one of " + ", ".join(names))
        return {name: self._check(name) for name in names if name not in without}

    def _check(self, name: str) -> list[dict[str, Any]]:
        """Run a check on a thread of its own, which is left behind where it hangs."""
        from llmops_core.parts import make_parts

        answers: list[list[dict[str, Any]]] = []

        def run() -> None:
            try:
                (check,) = make_parts(self.host, "check", [name]).values()
                answers.append([_plain(finding) for finding in check.check()])
            except BaseException as error:  # a plugin's, its sys.exit too; or an unknown release
                answers.append([_problem(f"the check failed: {type(error).__name__}: {error}")])

        thread = threading.Thread(target=run, name=f"llmops check {name}", daemon=True)
        thread.start()
        thread.join(_CHECK_SECONDS)
        return answers[0] if answers else [_problem(f"no answer in {_CHECK_SECONDS:g} s")]


def _hidden(text: str) -> str:
    """Hide what is secret in a value or an error: passwords of URLs, and what is named like one."""
    from llmops_core.cli.console import masked

    return _SECRET_PART.sub(r"\1***", masked(text))


def _plain(finding: Any) -> dict[str, Any]:
    from llmops_core.protocols import Finding

    if not isinstance(finding, Finding):
        raise TypeError(f"a check returned a {type(finding).__name__}, not a Finding")
    return {"text": finding.text, "level": finding.level, "facts": dict(finding.facts)}


def _problem(text: str) -> dict[str, Any]:
    return {"text": text, "level": "problem", "facts": {}}


def _failures(writers: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Sum what the monitors count. Their files may hold anything."""
    counted: dict[str, int] = {}
    for writer in writers:
        failures = writer["trouble"].get("failures")
        for what, count in failures.items() if isinstance(failures, dict) else ():
            if isinstance(count, int):
                counted[what] = counted.get(what, 0) + count
    return counted


def capture() -> dict[str, Any]:
    """Return what of the content is kept where a program says nothing else."""
    limit = settings()["content_limit"]
    return {
        "content_mode": "full",
        "content_limit": limit["value"],
        "source": limit["source"],
        "redactors": [],
    }


def breakers() -> dict[str, Any]:
    """Return the limits that environment and file set, each with its source; empty without any."""
    from llmops_core.breakers import resolve_breakers
    from llmops_core.errors import ConfigError

    try:
        limits, sources = resolve_breakers()
    except ConfigError as error:
        return {"error": {"value": str(error), "source": "set-up"}}
    return {
        name: {"value": value, "source": sources.get(name, "default")}
        for name, value in (limits.limits if limits else {}).items()
    }


def settings() -> dict[str, Any]:
    """Return each setting's value where a program gives none, and where it comes from."""
    import msgspec

    from llmops_core.config import Settings
    from llmops_core.errors import ConfigError
    from llmops_core.sources import LISTS, part_lists, resolve_settings

    error = None
    try:
        values, sources = resolve_settings({})
        parts = part_lists()
    except ConfigError as wrong:  # told, beside the defaults
        values, sources, parts, error = Settings(), {}, {}, _hidden(str(wrong))
    found = {
        name: {
            "value": _hidden(value) if isinstance(value, str) else value,
            "source": sources.get(name, "default"),
        }
        for name, value in msgspec.structs.asdict(values).items()
    }
    for name in LISTS:
        if name in parts:
            told = [_hidden(part) for part in parts[name].value]
            found[name] = {"value": told, "source": parts[name].source}
    if error is not None:
        found["error"] = {"value": error, "source": "set-up"}
    return found


def environment() -> dict[str, Any]:
    """Return the variables that are ours by name, and whether anything reads them."""
    import msgspec

    from llmops_core.breakers import PREFIX, Breakers
    from llmops_core.sources import variables

    limits = (f"{PREFIX}{field.name.upper()}" for field in msgspec.structs.fields(Breakers))
    read = {*variables(), *limits}
    return {
        name: {
            "value": "***" if _SECRET_NAME.search(name) else _hidden(value),
            "read": name in read,
        }
        for name, value in sorted(os.environ.items())
        if name.startswith("LLMOPS_")
    }
