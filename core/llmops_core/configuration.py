"""The published configuration objects. Imported when one is first asked for: pydantic is heavy.

They hold values and nothing else: :meth:`MonitorConfig.monitor_arguments` turns them into what
:class:`~llmops_core.Monitor` takes, and there they are checked like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_serializer,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from llmops_core import sources
from llmops_core.config import Compact, Durability, Overload
from llmops_core.errors import ConfigError
from llmops_core.plugins import masked

if TYPE_CHECKING:
    from llmops_core.monitor import Monitor

__all__ = ["DatadogConfig", "MonitorConfig", "PrometheusConfig", "StorageConfig", "WebSocketConfig"]

LOCAL_DIR = "./dev_monitoring_data"
_URL_FIELDS = ("output_dir", "connection_string", "table_name", "schema_name", "pool_size")


class _Part(BaseModel):
    """A part of a configuration: unknown names are errors, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, validate_assignment=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _told(type(self), error) from None


class StorageConfig(_Part):
    """Where spans are stored, and in which batches."""

    #: A name, or a storage object.
    backend: Any = "parquet"
    output_dir: str | None = None
    connection_string: SecretStr | None = None
    table_name: str | None = None
    schema_name: str | None = None
    pool_size: int | None = Field(default=None, ge=1, le=1000)
    batch_size: int | None = None
    flush_interval_seconds: float | None = None
    partition_by: str = "date"

    @field_validator("backend")
    @classmethod
    def _check_backend(cls, backend: Any) -> Any:
        if isinstance(backend, type):
            raise ValueError(f"expected a name or an object: write {backend.__name__}()")
        return backend

    def target(self) -> Any:
        """Return what ``Monitor(storage=...)`` takes: the URL, or the object that ``backend`` is."""
        if isinstance(self.backend, str):
            return self.to_url()
        mixed = [name for name in _URL_FIELDS if getattr(self, name) is not None]
        if mixed:
            raise ConfigError(
                f"StorageConfig has a {type(self.backend).__name__} for its backend, and "
                + " and ".join(mixed),
                "expected those only beside a backend's name",
                "give them to the object",
            )
        return self.backend

    def to_url(self) -> str:
        """Return the storage's URL, password included: do not print it."""
        if not isinstance(self.backend, str):
            raise ConfigError(f"a {type(self.backend).__name__} has no URL", "use target()")
        values = self.model_dump(exclude={"batch_size", "flush_interval_seconds"})
        if self.connection_string is not None:
            values["connection_string"] = self.connection_string.get_secret_value()
        return sources.make_storage_url({k: v for k, v in values.items() if v is not None})


class PrometheusConfig(_Part):
    """Data for a Prometheus exporter."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)


class DatadogConfig(_Part):
    """Data for a Datadog exporter."""

    enabled: bool = False
    api_key: SecretStr | None = None
    app_key: SecretStr | None = None
    site: str = "datadoghq.com"
    namespace: str = "llmops"
    use_statsd: bool = False
    statsd_host: str = "localhost"
    statsd_port: int = Field(default=8125, ge=0, le=65535)


class WebSocketConfig(_Part):
    """Data for live streaming."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)


class _FoundSettings(PydanticBaseSettingsSource):
    """What environment and file say, read as ``Monitor(...)`` reads it."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {**sources.file_settings(), **sources.environment()}
        return {name: told.value for name, told in found.items() if name != "storage"}


class MonitorConfig(BaseSettings):
    """Everything about a monitor. What the code does not give comes from ``LLMOPS_*`` and TOML.

    The settings are those of :class:`~llmops_core.config.Settings`; ``max_queue_size`` is the
    published name of ``queue_events``. Printing it shows no secret.
    """

    model_config = SettingsConfigDict(extra="forbid", hide_input_in_errors=True)

    #: None: ``LLMOPS_STORAGE_URL`` or what else names one, in the end a Parquet folder.
    storage: StorageConfig | None = None
    exporters: list[Any] | None = None
    collectors: list[Any] | None = None
    plugins: list[Any] | None = None
    #: ``Breakers``, or a dict of its limits. None: those of ``LLMOPS_BREAKERS_*`` and TOML.
    breakers: Any = None
    #: By name, each with ``enabled`` and what its part needs.
    extensions: dict[str, Any] = {}

    project: str | None = None
    service: str | None = None
    environment: str | None = None
    app_version: str | None = None
    durability: Durability | None = None
    content_limit: int | None = None
    queue_events: int | None = None
    queue_bytes: int | None = None
    overload: Overload | None = None
    block_seconds: float | None = None
    compact: Compact | None = None
    backlog_bytes: int | None = None
    journal_bytes: int | None = None
    batch_size: int | None = None
    flush_interval_seconds: float | None = None
    trace_spans: int | None = None
    open_spans: int | None = None
    idle_seconds: float | None = None
    shutdown_seconds: float | None = None
    join_opentelemetry: bool | None = None
    strict: bool | None = None
    max_queue_size: int | None = None

    _parts: ClassVar[tuple[str, ...]] = (
        "storage", "exporters", "collectors", "plugins", "breakers", "extensions",
        "max_queue_size",
    )  # fmt: skip

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _told(type(self), error) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Code first, then our own reader of environment and file."""
        return init_settings, _FoundSettings(settings_cls)

    @classmethod
    def for_local_dev(cls, **values: Any) -> MonitorConfig:
        """Return a configuration that writes small files soon, into ``./dev_monitoring_data``."""
        storage = StorageConfig(
            backend="parquet", output_dir=LOCAL_DIR, batch_size=10, flush_interval_seconds=1.0
        )
        return cls(**{"storage": storage, **values})

    @classmethod
    def for_production(cls, dsn: str, **values: Any) -> MonitorConfig:
        """Return a configuration for the database of a URL, in batches of 500 and 5 seconds."""
        storage = StorageConfig(
            backend=dsn.partition(":")[0],
            connection_string=SecretStr(dsn),
            batch_size=500,
            flush_interval_seconds=5.0,
        )
        return cls(**{"storage": storage, **values})

    def monitor_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of :class:`~llmops_core.Monitor` that this stands for."""
        # What environment and file say, the monitor reads itself: an error then names them.
        found = {**sources.file_settings(), **sources.environment()}
        said = {name: told.value for name, told in found.items()}
        arguments = {
            name: value
            for name in type(self).model_fields
            if name not in self._parts
            and (value := getattr(self, name)) is not None
            and said.get(name) != value
        }
        self._add(arguments, "queue_events", "max_queue_size", self.max_queue_size)
        if self.storage is not None:
            arguments["storage"] = self.storage.target()
            for name in ("batch_size", "flush_interval_seconds"):
                self._add(arguments, name, f"storage.{name}", getattr(self.storage, name))
        for name in ("exporters", "collectors", "plugins"):
            if getattr(self, name) is not None:
                arguments[name] = [*getattr(self, name)]
        if self.breakers is not None:
            arguments["breakers"] = self.breakers
        self._check_extensions()
        return arguments

    def open(self) -> Monitor:
        """Open the monitor of this configuration."""
        from llmops_core.monitor import Monitor

        return Monitor(**self.monitor_arguments())

    def _add(self, arguments: dict[str, Any], name: str, told: str, value: Any) -> None:
        if value is None:
            return
        if arguments.get(name, value) != value and name in self.model_fields_set:
            raise ConfigError(
                f"{name}={arguments[name]!r} and {told}={value!r} disagree", "expected one of them"
            )
        arguments[name] = value

    def _check_extensions(self) -> None:
        told = {
            name: values.model_dump() if isinstance(values, BaseModel) else values
            for name, values in self.extensions.items()
        }
        sources.check_extensions(told, _source_of("extensions", told))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _masked(value) if name == "extensions" else value

    @field_serializer("extensions", when_used="json")
    def _masked_extensions(self, value: dict[str, Any]) -> Any:
        return _masked(value)


_SECRET: Final = re.compile(r"(?i)key|token|secret|passw|pwd|dsn|credential|connection_string")


def _masked(value: Any, name: str = "") -> Any:
    """Return data with the values of keys that are named like a secret hidden."""
    if isinstance(value, Mapping):
        return {key: _masked(item, str(key)) for key, item in value.items()}
    if value is None or isinstance(value, BaseModel | SecretStr | bool):
        return value
    if _SECRET.search(name):
        return "**********"
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def _source_of(name: str, value: object) -> str:
    """Return who says a setting, the code where neither environment nor file say the same."""
    found = {**sources.file_settings(), **sources.environment()}
    told = found.get(name)
    return told.source if told is not None and told.value == value else sources.CODE


def _told(model: type, error: ValidationError) -> ConfigError:
    """Return a pydantic error as ours: what was found, without its value, and what was expected."""
    import difflib

    # The input is compared with what file and environment say, and never shown.
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted(getattr(model, "model_fields", ()))
        close = difflib.get_close_matches(name, known, n=1)
        return ConfigError(
            f"{model.__name__} has no {name!r}",
            "expected one of " + ", ".join(known),
            f"did you mean {close[0]!r}?" if close else "",
        )
    source = _source_of(name, first.get("input")) if model is MonitorConfig else sources.CODE
    where = "" if source == sources.CODE else f", from {source}"
    return ConfigError(f"{model.__name__}: {name}{where}", first["msg"])
