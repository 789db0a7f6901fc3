"""Where a monitor's settings come from: code, the environment, a TOML file, the defaults.

The first that names a setting wins, and an error names the one that it came from. The same reader
serves ``Monitor(...)``, :class:`~llmops_core.MonitorConfig`, the default monitor and the command
line. It imports nothing heavy.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec

from llmops_core.config import DEFAULT_STORAGE_URL, Settings
from llmops_core.errors import ConfigError

__all__ = [
    "CODE",
    "Setting",
    "StorageOptions",
    "check_extensions",
    "converted",
    "default_storage",
    "environment",
    "file_settings",
    "is_strict",
    "make_storage_url",
    "part_lists",
    "resolve_settings",
    "unknown_setting",
    "variables",
]

CODE: Final = "code"
DEFAULT: Final = "default"
#: Lists of parts; in the environment they are separated by commas.
LISTS: Final = ("exporters", "collectors", "plugins")
#: Tables of a TOML file, and what is no setting of one monitor.
TABLES: Final = ("storage", "extensions", "breakers")
OTHER_VARIABLES: Final = ("LLMOPS_STATE_DIR", "LLMOPS_STORAGE_URL", "LLMOPS_CONFIG")
#: Published names that stand for settings of another name.
ALIASES: Final[Mapping[str, str]] = {"max_queue_size": "queue_events"}
FILES: Final = ("llmops.toml", "pyproject.toml")
#: Settings that the published names have inside the storage.
BATCHING: Final = ("batch_size", "flush_interval_seconds")

_FIELDS: Final = {field.name: field.type for field in msgspec.structs.fields(Settings)}


class Setting(NamedTuple):
    """A value and who said it."""

    value: Any
    source: str


class StorageOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What says where spans are stored, by the published names. None: the storage's own default."""

    backend: str = "parquet"
    output_dir: str | None = None
    connection_string: str | None = None
    table_name: str | None = None
    schema_name: str | None = None
    pool_size: int | None = None
    partition_by: str = "date"


#: Published names of backends, and the scheme of their URL.
SCHEMES: Final[Mapping[str, str]] = {
    "parquet": "parquet",
    "memory": "memory",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "clickhouse": "clickhouse",
}
_STORAGE_FIELDS: Final = {f.name: f.type for f in msgspec.structs.fields(StorageOptions)}


def variables() -> tuple[str, ...]:
    """Return every environment variable that is read."""
    names = (*_FIELDS, *LISTS, *_STORAGE_FIELDS, *ALIASES)
    return (*OTHER_VARIABLES, *(f"LLMOPS_{name.upper()}" for name in names))


# ---- settings ----


def resolve_settings(
    given: Mapping[str, Any], source: str = CODE
) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and where each one comes from. Raise with the source of a bad one.

    *given* is what the code says; an unknown name in it gets the nearest known one.
    """
    for name in given:
        if name not in _FIELDS:
            raise unknown_setting(name, source, _FIELDS)
    found = {**file_settings(), **environment()}
    extensions = found.get("extensions")
    if extensions is not None:
        if not isinstance(extensions.value, dict):
            raise ConfigError(f"extensions in {extensions.source}", "expected a table")
        check_extensions(extensions.value, extensions.source)
    values = {name: setting for name, setting in found.items() if name in _FIELDS}
    values |= {name: Setting(value, source) for name, value in given.items()}
    try:
        settings = Settings(**{name: setting.value for name, setting in values.items()})
    except ConfigError as error:
        name = error.found.partition("=")[0]
        told = values.get(name)
        if told is None or told.source == CODE:
            raise
        raise ConfigError(f"{error.found}, from {told.source}", error.expected, error.do) from None
    sources = {name: values[name].source if name in values else DEFAULT for name in _FIELDS}
    return settings, sources


def is_strict(given: Mapping[str, Any]) -> bool:
    """Whether a set-up that cannot work raises. Asked when it failed, so nothing may be amiss here.

    A value that is none, and a file that cannot be read, leave it at that. What else the file says may be
    what is wrong.
    """
    told = given.get("strict")
    if isinstance(told, bool):
        return told
    text = os.environ.get("LLMOPS_STRICT", "").strip().lower()
    if text:
        return text not in ("false", "0")
    try:
        table, _ = _file_table()
    except ConfigError:
        return True
    return table.get("strict") is not False


def check_extensions(told: Mapping[str, Any], source: str) -> None:
    """Raise where an extension is enabled that this release does not have."""
    where = "" if source == CODE else f" in {source}"
    for name, values in told.items():
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"extensions[{name!r}]{where} is a {type(values).__name__}", "expected a dictionary"
            )
        if values.get("enabled"):
            raise ConfigError(
                f"extensions[{name!r}]{where} is enabled, and this release has no such part",
                "expected extensions that are not enabled",
                "leave it out, or pass an exporter of your own in exporters=[...]",
            )


def part_lists() -> dict[str, Setting]:
    """Return exporters, collectors and plugins that environment or file name."""
    found = {**file_settings(), **environment()}
    return {name: found[name] for name in LISTS if name in found}


def environment() -> dict[str, Setting]:
    """Return what ``LLMOPS_*`` variables say, each converted to its setting's type."""
    found: dict[str, Setting] = {}
    for name in (*_FIELDS, *LISTS, *ALIASES):
        variable = f"LLMOPS_{name.upper()}"
        text = os.environ.get(variable)
        if not text:
            continue
        target = ALIASES.get(name, name)
        value: Any
        if name in LISTS:
            value = [part.strip() for part in text.split(",") if part.strip()]
        else:
            value = converted(variable, text, _FIELDS[target])
        if target in found and found[target].value != value:
            raise ConfigError(
                f"{variable}={text!r} and {found[target].source} disagree", "expected one of them"
            )
        found[target] = Setting(value, variable)
    return found


def converted(variable: str, text: str, kind: Any) -> Any:
    """Return what a variable says, as the type of its setting; raise with its name."""
    if kind in (str, str | None):
        return text
    try:
        return msgspec.convert(text.strip(), kind, strict=False)
    except msgspec.ValidationError:
        raise ConfigError(f"{variable}={text!r}", f"expected {_kind_name(kind)}") from None


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    name = str(getattr(kind, "__name__", kind))
    if "int" in name:
        return "a whole number"
    if name == "bool":
        return "true or false"
    return "a number" if "float" in name else name.replace("typing.", "")


def unknown_setting(name: str, source: str, known: Iterable[str]) -> ConfigError:
    """Return the error of a name that no setting has, with the nearest one that does."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    where = "" if source == CODE else f" in {source}"
    return ConfigError(
        f"unknown setting {name!r}{where}",
        "expected one of " + ", ".join(known),
        f"did you mean {close[0]!r}?" if close else "",
    )


# ---- the file ----


def file_settings() -> dict[str, Setting]:
    """Return what the TOML file says: ``LLMOPS_CONFIG``, else one in the working directory."""
    table, source = _file_table()
    found: dict[str, Setting] = {}
    for key, value in table.items():
        name = ALIASES.get(key, key)
        if name not in _FIELDS and name not in LISTS and name not in TABLES:
            raise unknown_setting(key, source, (*_FIELDS, *LISTS, *TABLES))
        if name in LISTS and (
            not isinstance(value, list) or not all(isinstance(item, str) for item in value)
        ):
            raise ConfigError(f"{key}={value!r} in {source}", "expected a list of names")
        found[name] = Setting(value, f"{source} [{key}]")
    inside = table.get("storage")
    if isinstance(inside, dict):
        for name in BATCHING:
            if name in inside:
                found.setdefault(name, Setting(inside[name], f"{source} [storage.{name}]"))
    return found


def _file_table() -> tuple[dict[str, Any], str]:
    named = os.environ.get("LLMOPS_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigError(f"LLMOPS_CONFIG={named!r}", "expected the path of a TOML file")
        return _table_of(path), str(path)
    for name in FILES:
        path = Path(name)
        if path.is_file():
            table = _table_of(path)
            if table or name == FILES[0]:
                return table, name
    return {}, ""


def _table_of(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if path.name == "pyproject.toml":
            return {}
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "expected settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.name == "pyproject.toml":
            return {}  # not ours to judge
        raise ConfigError(f"{path} is not TOML: {error}", "expected settings by name") from None
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("llmops", {})
    return content if isinstance(content, dict) else {}


# ---- storage ----


def default_storage() -> Setting:
    """Return the URL of the storage where the code names none, and where it comes from."""
    url = os.environ.get("LLMOPS_STORAGE_URL")
    options = {
        name: os.environ[variable]
        for name in _STORAGE_FIELDS
        if os.environ.get(variable := f"LLMOPS_{name.upper()}")
    }
    if url:
        _check_agreement(url, options)
        return Setting(url, "LLMOPS_STORAGE_URL")
    if {"backend", "connection_string", "output_dir", "partition_by"} & set(options):
        named = " and ".join(f"LLMOPS_{name.upper()}" for name in options)
        return Setting(make_storage_url(options, named), named)
    told = file_settings().get("storage")
    if told is None:
        return Setting(DEFAULT_STORAGE_URL, DEFAULT)
    if isinstance(told.value, str):
        return told
    if not isinstance(told.value, dict):
        raise ConfigError(f"storage={told.value!r} in {told.source}", "expected a URL or a table")
    table = {k: v for k, v in told.value.items() if k not in BATCHING}
    return Setting(make_storage_url(table, told.source), told.source)


def _check_agreement(url: str, options: Mapping[str, str]) -> None:
    """Raise where the two ways to name a storage name different ones."""
    scheme = url.partition(":")[0]
    backend = options.get("backend")
    if backend is not None and SCHEMES.get(backend.lower(), backend) != SCHEMES.get(scheme, scheme):
        raise ConfigError(
            f"LLMOPS_BACKEND={backend!r} and LLMOPS_STORAGE_URL with {scheme!r} disagree",
            "expected one storage",
            "unset one of the two",
        )
    other = options.get("connection_string")
    if other is not None and other != url:
        raise ConfigError(
            "LLMOPS_CONNECTION_STRING and LLMOPS_STORAGE_URL disagree",
            "expected one storage",
            "unset one of the two",
        )


def make_storage_url(given: Mapping[str, Any], source: str = CODE) -> str:
    """Return the URL of published storage options. No message holds a connection string."""
    for name in given:
        if name not in _STORAGE_FIELDS:
            raise unknown_setting(name, source, _STORAGE_FIELDS)
    try:
        options = msgspec.convert(
            {k: v for k, v in given.items() if v is not None}, StorageOptions, strict=False
        )
    except msgspec.ValidationError as error:
        raise ConfigError(f"storage from {source}: {error}", "expected its type") from None
    if "backend" not in given and options.connection_string:
        options = msgspec.structs.replace(
            options, backend=options.connection_string.partition(":")[0]
        )
    scheme = SCHEMES.get(options.backend.lower(), options.backend)
    if options.partition_by != "date":
        raise ConfigError(
            f"partition_by={options.partition_by!r} from {source}",
            "expected 'date'",
            "a session's spans are found by its id in folders by date too",
        )
    if scheme == "parquet":
        return f"parquet:{options.output_dir}" if options.output_dir else DEFAULT_STORAGE_URL
    if scheme == "memory":
        return "memory:"
    if not options.connection_string:
        raise ConfigError(
            f"backend={options.backend!r} from {source} without connection_string",
            f"expected a URL such as '{scheme}://user@host/database'",
        )
    return _with_options(options.connection_string, options)


def _with_options(url: str, options: StorageOptions) -> str:
    from urllib.parse import urlencode

    extra = {
        "table": options.table_name,
        "schema": options.schema_name,
        "pool_size": options.pool_size,
    }
    told = {name: value for name, value in extra.items() if value is not None}
    if not told:
        return url
    return url + ("&" if "?" in url else "?") + urlencode(told)
