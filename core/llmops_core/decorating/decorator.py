"""``@monitor_llm``: records the calls of a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

from llmops_core.decorating.arguments import Arguments
from llmops_core.decorating.operation import TARGET, Operation
from llmops_core.decorating.wrapping import wrap
from llmops_core.errors import ConfigError
from llmops_core.measuring.request import Measurement, make_request
from llmops_core.span import KINDS

if TYPE_CHECKING:
    from llmops_core.monitor import Monitor

__all__ = ["Decorator", "monitor_llm"]

#: Published operation types that are not a kind's own name.
OPERATION_TYPES: Final[Mapping[str, str]] = {"llm_call": "llm", "agent_workflow": "workflow"}
#: Custom attributes that have a column.
MODEL_COLUMNS: Final = ("model", "provider")
MAX_ATTRIBUTES: Final = 64

_Function = TypeVar(
    "_Function", bound="Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]"
)


class Decorator(Protocol):
    """What ``@monitor_llm(...)`` makes: it returns a function of the type that it is given."""

    def __call__(self, function: _Function, /) -> _Function:
        """Return *function* with its calls recorded."""


@overload
def monitor_llm(operation_name: _Function, /) -> _Function: ...


@overload
def monitor_llm(
    operation_name: str | None = None,
    operation_type: str | None = None,
    measure_text: bool | Iterable[str] = False,
    measure_images: bool | Iterable[str] = False,
    collectors: Iterable[object] | None = None,
    measurement: Measurement | None = None,
    custom_attributes: Mapping[str, object] | None = None,
    session_id_from: str | None = None,
    trace_id_from: str | None = None,
    enabled: bool = True,
    *,
    monitor: Monitor | None = None,
) -> Decorator: ...


def monitor_llm(
    operation_name: Any = None,
    operation_type: str | None = None,
    measure_text: bool | Iterable[str] = False,
    measure_images: bool | Iterable[str] = False,
    collectors: Iterable[object] | None = None,
    measurement: Measurement | None = None,
    custom_attributes: Mapping[str, object] | None = None,
    session_id_from: str | None = None,
    trace_id_from: str | None = None,
    enabled: bool = True,
    *,
    monitor: Monitor | None = None,
) -> Any:
    """Record every call of a function as a span, with its arguments and its result.

    For functions, coroutines, generators, async generators and methods, bare or with arguments.
    Nothing about a call changes: not its result, its exceptions, its signature or its type.

    *operation_type* is a span's kind (``"tool"``, ``"agent"`` …), ``"llm_call"`` or
    ``"agent_workflow"``. *measure_text*, *measure_images*, *measurement* and *collectors* say what
    the delivery thread measures. *session_id_from* and *trace_id_from* name parameters. Without
    *monitor* the calls go to the default one, and wait for it in memory until there is one.

    What cannot work raises a ``ConfigError`` here; a call never does.
    """
    options: dict[str, Any] = {
        "operation_type": operation_type,
        "request": make_request(measure_text, measure_images, collectors, measurement),
        "attributes": _attributes(custom_attributes),
        "session_from": session_id_from,
        "trace_from": trace_id_from,
        "monitor": monitor,
    }
    _check_type(operation_type)
    if not isinstance(enabled, bool):
        raise ConfigError(f"enabled={enabled!r}", "expected True or False")
    if monitor is not None and not hasattr(monitor, "recorder"):
        raise ConfigError(
            f"monitor={monitor!r}", "expected a Monitor", "write monitor=Monitor(...)"
        )
    if operation_name is None or isinstance(operation_name, str):
        name = operation_name

        def decorate(function: Any) -> Any:
            return _decorate(function, name, options) if enabled else function

        return decorate
    return _decorate(operation_name, None, options) if enabled else operation_name


def _decorate(function: Any, name: str | None, options: Mapping[str, Any]) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        bound = isinstance(function, classmethod)
        inner = _decorate_function(function.__func__, name, options, bound=bound)
        return type(function)(inner)
    return _decorate_function(function, name, options, bound=False)


def _decorate_function(
    function: Any, name: str | None, options: Mapping[str, Any], *, bound: bool
) -> Any:
    if inspect.isclass(function) or not callable(function):
        raise ConfigError(
            f"monitor_llm was put on {function!r}",
            "expected a function or a method",
            "put it on the methods of a class, one by one",
        )
    arguments = Arguments(function, bound=bound)
    name = name or getattr(function, "__name__", None) or type(function).__name__
    for option in ("session_from", "trace_from"):
        _check_parameter(name, arguments, option.partition("_")[0] + "_id_from", options[option])
    attributes = dict(options["attributes"])
    model = {c: str(attributes.pop(c)) for c in MODEL_COLUMNS if c in attributes}
    kind, target = _kind(options["operation_type"]), None
    if kind == "handoff" and (TARGET in attributes or arguments.has_named(TARGET)):
        kind, target = "tool", str(attributes.pop(TARGET, ""))
    request = options["request"]
    attributes.update(request.attributes())
    monitor = options["monitor"]
    operation = Operation(
        name,
        kind,
        arguments,
        attributes=attributes or None,
        model=model,
        fixed=None if monitor is None else monitor.recorder,
        collectors=request.collectors,
        session_from=options["session_from"],
        trace_from=options["trace_from"],
        target=target,
    )
    return wrap(operation, function)


def _kind(operation_type: str | None) -> str | None:
    if operation_type is None:
        return None
    known = OPERATION_TYPES.get(operation_type, operation_type)
    return known if known in KINDS else "chain"


def _check_type(operation_type: object) -> None:
    if operation_type is not None and not isinstance(operation_type, str):
        raise ConfigError(
            f"operation_type={operation_type!r}",
            "expected one of " + ", ".join((*OPERATION_TYPES, *KINDS)),
        )


def _check_parameter(name: str, arguments: Arguments, option: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not arguments.has(value):
        raise ConfigError(
            f"{option}={value!r} of {name!r}",
            "expected the name of a parameter: "
            + (", ".join(arguments.all_names) or "it has none"),
        )


def _attributes(given: Mapping[str, object] | None) -> dict[str, object]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigError(
            f"custom_attributes={given!r}", "expected a mapping with texts as its keys"
        )
    if len(given) > MAX_ATTRIBUTES:
        raise ConfigError(
            f"custom_attributes with {len(given)} entries", f"expected {MAX_ATTRIBUTES} at most"
        )
    return {key: _plain(value) for key, value in given.items()}


def _plain(value: object) -> object:
    """Return a scalar as it is, anything else as JSON: attributes are texts."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    import msgspec

    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, NotImplementedError):
        raise ConfigError(
            f"a custom attribute is a {type(value).__name__}", "expected plain data"
        ) from None
