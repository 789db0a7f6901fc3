"""Makes the parts that a monitor was given by name, and checks those given as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmops_core.errors import ConfigError
from llmops_core.plugins import PluginHost, masked, plugin_name
from llmops_core.protocols import Analyzer, Check, Collector, Exporter, Storage
from llmops_core.sources import Setting
from llmops_core.storage.published import adapted

__all__ = ["listed", "make_parts", "make_storage", "parts_of", "storage_name"]

_DEFAULT_PARTS: Final[Mapping[str, tuple[str, ...]]] = {"collectors": ("capacity", "measure")}

_PROTOCOLS: Final[dict[str, tuple[type, tuple[str, ...]]]] = {
    "storage": (Storage, ("open", "write", "query", "close")),
    "exporter": (Exporter, ("export", "close")),
    "collector": (Collector, ("collect",)),
    "analyzer": (Analyzer, ("analyze",)),
    "check": (Check, ("check",)),
}


def make_storage(host: PluginHost, target: Any) -> Storage:
    """Return the storage of a URL, or the object itself. Raise if it is neither.

    An object of the published form, ``StorageBackend``, is adapted.
    """
    if isinstance(target, str):
        made: Any = adapted(host.storage(target))
        return _checked("storage", target.partition(":")[0], made)  # type: ignore[no-any-return]
    return _checked("storage", type(target).__name__, adapted(target))  # type: ignore[no-any-return]


def make_parts(host: PluginHost, kind: str, given: Iterable[Any]) -> dict[str, Any]:
    """Return parts by a name that is unique among them."""
    parts: dict[str, Any] = {}
    for item in given:
        if isinstance(item, str):
            name, part = item.partition(":")[0], host.part(kind, item)
        else:
            name, part = plugin_name(item), item
        part = _checked(kind, name, part)
        if name in parts and isinstance(item, str) and item in (name, f"{name}:"):
            raise ConfigError(f"{kind} {name!r} is named twice", "expected each once")
        unique, number = name, 2
        while unique in parts:
            unique, number = f"{name}-{number}", number + 1
        parts[unique] = part
    return parts


def listed(name: str, value: Any, named: Mapping[str, Setting]) -> list[Any]:
    """Return what the code lists, else what environment or file name, else the default."""
    if value is None:
        return list(named[name].value) if name in named else list(_DEFAULT_PARTS.get(name, ()))
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r}", "expected a list", f"write {name}=[{value!r}]")
    return list(value)


def parts_of(
    host: PluginHost, kind: str, given: Any, named: Mapping[str, Setting]
) -> dict[str, Any]:
    """Return the parts of a kind; a set-up error says also which file or variable names them."""
    name = f"{kind}s"
    try:
        return make_parts(host, kind, listed(name, given, named))
    except ConfigError as error:
        if given is not None or name not in named:
            raise
        found = f"{error.found}, from {named[name].source},"
        raise type(error)(found, error.expected, error.do) from None


def storage_name(target: Any) -> str:
    """Return a storage's URL without its password, or its class name."""
    return masked(target) if isinstance(target, str) else type(target).__name__


def _checked(kind: str, name: str, part: Any) -> Any:
    protocol, methods = _PROTOCOLS[kind]
    if isinstance(part, type):
        raise ConfigError(
            f"{kind} {name!r} is a class", "expected an object", f"write {part.__name__}()"
        )
    if not isinstance(part, protocol):
        missing = [m for m in methods if not callable(getattr(part, m, None))]
        raise ConfigError(
            f"{kind} {name!r} is a {type(part).__name__} without {', '.join(missing)}",
            f"expected a name or an object with {', '.join(methods)}",
        )
    return part
