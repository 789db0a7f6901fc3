"""Find, load and register plugins: built-ins, objects, and installed entry points by name.

Installed is not enabled: an entry point (group ``llmops``) is imported only when its name, which is
the storage scheme or the part that it provides, is named in the configuration.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import pluggy

from llmops_core import hookspecs
from llmops_core.errors import LLMOpsError, PluginError, UnknownPart, UnknownStorage

__all__ = ["BUILTINS", "PluginHost", "Registry", "installed_plugins", "masked", "plugin_name"]

Factory = Callable[[str], object]

#: What a plugin may raise at set-up and is told as its failure. A KeyboardInterrupt or a
#: cancellation may be the user's own: set-up runs on the user's thread.
SET_UP_FAILURES: Final = (Exception, SystemExit, GeneratorExit)

#: What comes with this distribution, by kind and name: modules that register as a third party's would.
BUILTINS: Final[dict[str, dict[str, str]]] = {
    "storage": {
        "parquet": "llmops_core.storage.parquet",
        "memory": "llmops_core.storage.memory",
        "postgresql": "llmops_core.storage.postgres",
        "postgres": "llmops_core.storage.postgres",
        "mysql": "llmops_core.storage.mysql",
        "mariadb": "llmops_core.storage.mysql",
        "clickhouse": "llmops_core.storage.clickhouse",
        "clickhouses": "llmops_core.storage.clickhouse",
    },
    "exporter": {
        "console": "llmops_core.exporters.console",
        "jsonl": "llmops_core.exporters.jsonl",
    },
    "collector": {
        "capacity": "llmops_core.collectors.capacity",
        "measure": "llmops_core.collectors.measure",
        "tokens": "llmops_core.collectors.tokens",
        "tokenizer": "llmops_core.collectors.tokenizer",
        "latency": "llmops_core.collectors.latency",
        "cache": "llmops_core.collectors.cache",
    },
    "analyzer": {
        "agents": "llmops_core.analyzers",
        "edges": "llmops_core.analyzers",
        "drift": "llmops_core.analyzers",
    },
    # Found by name, as the demo is: the core imports no integration.
    "check": {
        "frameworks": "llmops_integrations.checks",
        "hooks": "llmops_integrations.checks",
        "vendors": "llmops_integrations.checks",
        "telemetry": "llmops_integrations.checks",
    },
}


class Registry:
    """What plugins have registered. Passed to the ``llmops_register`` hook.

    A factory is called with the text that the user wrote: a storage's whole URL, or what follows
    the colon of a part's name (``"jsonl:./spans.jsonl"`` gives ``"./spans.jsonl"``), else ``""``.
    It returns the object, ready to open, and raises an ``LLMOpsError`` on text it cannot use.
    """

    def __init__(self) -> None:
        self._factories: dict[tuple[str, str], tuple[Factory, str]] = {}
        self._registering = ""

    def storage(self, scheme: str, factory: Factory) -> None:
        """Provide a storage for URLs that start with ``scheme:``."""
        self._add("storage", scheme, factory)

    def exporter(self, name: str, factory: Factory) -> None:
        """Provide an exporter."""
        self._add("exporter", name, factory)

    def collector(self, name: str, factory: Factory) -> None:
        """Provide a collector."""
        self._add("collector", name, factory)

    def analyzer(self, name: str, factory: Factory) -> None:
        """Provide an analyzer: spans in, a table out."""
        self._add("analyzer", name, factory)

    def tokenizer(self, name: str, factory: Factory) -> None:
        """Provide a tokenizer for the collector ``tokenizer:NAME``."""
        self._add("tokenizer", name, factory)

    def entity_extractor(self, name: str, factory: Factory) -> None:
        """Provide an entity extractor, which finds what the scanner has no pattern for."""
        self._add("entity_extractor", name, factory)

    def equivalence(self, name: str, factory: Factory) -> None:
        """Provide an equivalence, which says whether two values that are left over mean the same."""
        self._add("equivalence", name, factory)

    def check(self, name: str, factory: Factory) -> None:
        """Provide a check for ``llmops doctor``."""
        self._add("check", name, factory)

    def names(self, kind: str) -> list[str]:
        """Return the registered names of a kind, sorted."""
        return sorted(name for known, name in self._factories if known == kind)

    def find(self, kind: str, name: str) -> Factory | None:
        """Return the factory that is registered for a kind and name."""
        found = self._factories.get((kind, name))
        return found[0] if found else None

    def _owned_by(self, owner: str) -> list[str]:
        return sorted(
            f"{kind} {name}" for (kind, name), (_, who) in self._factories.items() if who == owner
        )

    def _forget(self, owner: str) -> None:
        """Take back what a plugin registered: its registering failed in the middle."""
        kept = {key: value for key, value in self._factories.items() if value[1] != owner}
        self._factories = kept

    def _add(self, kind: str, name: str, factory: Factory) -> None:
        if not isinstance(name, str) or not name or ":" in name:
            raise PluginError(
                f"plugin {self._registering!r} registers a {kind} named {name!r}",
                "expected a non-empty text without a colon",
            )
        if not callable(factory):
            raise PluginError(
                f"plugin {self._registering!r} registers {factory!r} for {kind} {name!r}",
                "expected a function that takes one text and returns the object",
            )
        owner = self._factories.get((kind, name))
        if owner:
            raise PluginError(
                f"{kind} {name!r} is registered twice, by {owner[1]!r} and by {self._registering!r}",
                "expected one plugin for each name",
                "leave out one of the two plugins",
            )
        self._factories[kind, name] = (factory, self._registering)


class PluginHost:
    """Loads plugins into one pluggy manager and makes parts from names."""

    def __init__(self, plugins: Iterable[object] = ()) -> None:
        self.registry = Registry()
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        for plugin in plugins:
            if isinstance(plugin, str):
                self.load(plugin)
            else:
                self.add(plugin)

    @property
    def names(self) -> list[str]:
        """Names of the loaded plugins, built-ins included."""
        return sorted(name for name, _ in self.manager.list_name_plugin())

    def load(self, name: str) -> None:
        """Import an installed plugin by the name of its entry point, and register it."""
        self.add(self._load_named(name))

    def enabled(self) -> dict[str, tuple[list[str], list[str]]]:
        """Return the loaded plugins that are no built-ins: the hooks and the parts of each."""
        builtin = {module for modules in BUILTINS.values() for module in modules.values()}
        found = {}
        for name, plugin in self.manager.list_name_plugin():
            if plugin is None or getattr(plugin, "__name__", None) in builtin:
                continue
            hooks = self.manager.get_hookcallers(plugin) or ()
            parts = self.registry._owned_by(name)
            found[name] = (sorted(hook.name for hook in hooks), parts)
        return found

    def add(self, plugin: object, name: str | None = None) -> None:
        """Register a plugin object and let it register its parts. Raise ``PluginError`` if wrong."""
        name = name or plugin_name(plugin)
        self._check_hooks(plugin, name)
        if self.manager.is_registered(plugin) or self.manager.has_plugin(name):
            raise PluginError(
                f"plugin {name!r} is given twice",
                "expected each plugin once",
                "leave out one of them",
            )
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(plugin)
            raise PluginError(f"plugin {name!r} does not fit: {error}") from error
        self._register(plugin, name)

    def storage(self, url: str) -> object:
        """Make the storage of a URL, importing the plugin that provides its scheme."""
        scheme, colon, _ = url.partition(":")
        if not colon or not scheme:
            raise UnknownStorage(
                f"storage {url!r} has no scheme",
                "expected a URL such as 'parquet:./llmops_data' or 'memory:'",
            )
        return self._make("storage", scheme, url)

    def part(self, kind: str, name: str) -> object:
        """Make an exporter or a collector from ``name`` or ``name:argument``."""
        base, _, argument = name.partition(":")
        return self._make(kind, base, argument)

    def _make(self, kind: str, name: str, argument: str) -> object:
        factory = self.registry.find(kind, name)
        if factory is None:
            self._load_for(kind, name)
            factory = self.registry.find(kind, name)
        if factory is None:
            raise self._unknown(kind, name, argument)
        try:
            return factory(argument)
        except LLMOpsError:
            raise
        except SET_UP_FAILURES as error:
            raise PluginError(
                f"{kind} {name!r} could not be made: {type(error).__name__}: {error}"
            ) from error

    def _load_for(self, kind: str, name: str) -> None:
        module = BUILTINS.get(kind, {}).get(name)
        if module is not None:
            self.add(importlib.import_module(module))
            return
        entry = _entry_points().get(name)
        if entry is not None and not self.manager.has_plugin(name):
            self.add(_load(entry), name)

    def _load_named(self, name: str) -> object:
        entry = _entry_points().get(name)
        if entry is None:
            raise PluginError(
                f"no plugin named {name!r} is installed",
                "installed: " + (", ".join(sorted(_entry_points())) or "none"),
                _did_you_mean(name, _entry_points()),
            )
        return _load(entry)

    def _register(self, plugin: object, name: str) -> None:
        register = getattr(plugin, "llmops_register", None)
        if register is None:
            return
        self.registry._registering = name
        try:
            register(registry=self.registry)
        except PluginError:
            self._forget(plugin, name)
            raise
        except SET_UP_FAILURES as error:
            self._forget(plugin, name)
            raise PluginError(
                f"plugin {name!r} failed in llmops_register: {type(error).__name__}: {error}"
            ) from error

    def _forget(self, plugin: object, name: str) -> None:
        self.manager.unregister(plugin)
        self.registry._forget(name)

    def _check_hooks(self, plugin: object, name: str) -> None:
        """Refuse what pluggy would take silently: misspelt, unmarked and asynchronous hooks."""
        if inspect.isclass(plugin):
            raise PluginError(
                f"plugin {name!r} is a class",
                "expected an object",
                f"write {plugin.__name__}() instead of {plugin.__name__}",
            )
        known = [n for n in vars(hookspecs) if n.startswith("llmops_")]
        marked = 0
        for attribute in dir(plugin):
            if not attribute.startswith("llmops_"):
                continue
            function = getattr(plugin, attribute)
            if attribute not in known:
                raise PluginError(
                    f"plugin {name!r} has a hook {attribute!r} that does not exist",
                    "expected one of " + ", ".join(known),
                    _did_you_mean(attribute, known),
                )
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise PluginError(
                    f"hook {attribute!r} of plugin {name!r} is 'async def'",
                    "expected a plain function",
                    "register an object; its methods may be async",
                )
            if not hasattr(function, "llmops_impl"):
                raise PluginError(
                    f"hook {attribute!r} of plugin {name!r} is not marked",
                    "expected the decorator @llmops_core.hookimpl",
                )
            marked += 1
        if not marked:
            raise PluginError(
                f"plugin {name!r} implements no hook",
                "expected at least one of " + ", ".join(known),
            )

    def _unknown(self, kind: str, name: str, argument: str) -> UnknownPart | UnknownStorage:
        known = set(BUILTINS.get(kind, {})) | set(self.registry.names(kind)) | set(_entry_points())
        listed = "registered: " + ", ".join(sorted(known))
        hint = _did_you_mean(name, known)
        if kind == "storage":
            do = hint or f"pass a storage object, or install a plugin that registers {name!r}"
            return UnknownStorage(f"no storage handles {masked(argument)!r}", listed, do)
        do = hint or f"pass an object, or install a plugin that registers {name!r}"
        return UnknownPart(f"unknown {kind} {name!r}", listed, do)


def plugin_name(plugin: object) -> str:
    """Return the name of a plugin object: its own ``name``, its module's, or its class's."""
    name = getattr(plugin, "name", None)
    if isinstance(name, str) and name:
        return name
    return getattr(plugin, "__name__", None) or type(plugin).__name__


def installed_plugins() -> dict[str, str]:
    """Return installed entry points, name to distribution and version, without importing any."""
    found = {}
    for name, entry in _entry_points().items():
        dist = entry.dist
        found[name] = f"{dist.name} {dist.version}" if dist else entry.value
    return found


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=hookspecs.PROJECT)}


def _load(entry: importlib.metadata.EntryPoint) -> object:
    try:
        return entry.load()
    except SET_UP_FAILURES as error:
        raise PluginError(
            f"plugin {entry.name!r} ({entry.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _did_you_mean(name: str, known: Iterable[Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def masked(url: str) -> str:
    """Hide what is secret in a URL: it may end up in a log.

    That is the password, and the values of parameters that are named like a secret; of what should
    be a database's URL and is none, everything behind its scheme.
    """
    scheme, sep, rest = url.partition("://")
    if not sep:
        scheme, _, rest = url.partition(":")
        told = scheme.lower() in _DATABASES and rest and " " not in rest
        return f"{scheme}:***" if told else url
    if "@" in rest:  # a password may hold anything, a question mark too
        user, _, host = rest.rpartition("@")
        rest = f"{user.partition(':')[0]}:***@{host}"
    return f"{scheme}://{_SECRET_VALUE.sub(_hidden, rest)}"


def _hidden(match: re.Match[str]) -> str:
    return f"{match[1]}***"


_DATABASES: Final = ("postgres", "postgresql", "mysql", "mariadb", "clickhouse", "redis")
_SECRET_VALUE: Final = re.compile(
    r"(?i)([a-z_-]*(?:password|passwd|pwd|secret|token|key|credential)[a-z_-]*=)[^&#\s]*"
)
