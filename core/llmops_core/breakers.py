"""Limits that stop a run, where the user sets any: what they are, and where they are read from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from llmops_core.errors import ConfigError
from llmops_core.sources import CODE, Setting, converted, file_settings, unknown_setting

__all__ = ["Breakers", "make_breakers", "resolve_breakers"]

PREFIX: Final = "LLMOPS_BREAKERS_"
TABLE: Final = "breakers"


class Breakers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of what a run, a session and a tenant may use. None: there is no such limit.

    A run is everything below one root. Sessions and tenants (users, the project) are counted in
    this process, anew after each ``window_seconds``. What is counted is what the monitor sees: model
    calls, and the tokens that they tell.
    """

    #: Tokens, model calls and seconds of one run.
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    #: How often two agents may pass the work to and fro: 2 stops A → B → A → B at the second B.
    ping_pong: int | None = None
    #: How many runs one run may have open below it at once, or start in one step of a graph.
    fan_out: int | None = None
    #: The same tokens and model calls of all runs of one session, one user, and the whole project.
    session_tokens: int | None = None
    session_calls: int | None = None
    user_tokens: int | None = None
    user_calls: int | None = None
    project_tokens: int | None = None
    project_calls: int | None = None
    #: After how long the counts of sessions and tenants begin anew.
    window_seconds: float = 86_400.0

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            if value is None:
                continue
            whole = field.name not in ("seconds", "window_seconds")
            low = 2 if field.name == "ping_pong" else 1 if whole else 0.001
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= 2**53:
                what = "a whole number" if whole else "a number"
                raise ConfigError(
                    f"breakers: {field.name}={value!r}", f"expected {what} from {low}"
                )

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, and to how much."""
        told = msgspec.structs.asdict(self)
        del told["window_seconds"]
        return {name: value for name, value in told.items() if value is not None}


_FIELDS: Final = {field.name: field.type for field in msgspec.structs.fields(Breakers)}


def make_breakers(given: Breakers | Mapping[str, Any] | None) -> Breakers | None:
    """Return the limits that the code gives, else those of the environment and the file.

    None where no limit is set anywhere: then nothing is counted, and nothing ever raises.
    """
    return resolve_breakers(given)[0]


def resolve_breakers(
    given: Breakers | Mapping[str, Any] | None = None,
) -> tuple[Breakers | None, dict[str, str]]:
    """Return the limits, and where each comes from. What the code gives is taken alone."""
    if isinstance(given, Breakers):
        return (given if given.limits else None), dict.fromkeys(given.limits, CODE)
    if given is None:
        found = {**_of_file(), **_of_environment()}
    elif isinstance(given, Mapping):
        found = {name: Setting(value, CODE) for name, value in given.items()}
    else:
        raise ConfigError(
            f"breakers={given!r}", "expected Breakers(...)", "write breakers=Breakers(calls=100)"
        )
    for name, setting in found.items():
        if name not in _FIELDS:
            raise unknown_setting(name, setting.source, _FIELDS)
    try:
        breakers = Breakers(**{name: setting.value for name, setting in found.items()})
    except ConfigError as error:
        name = error.found.partition(": ")[2].partition("=")[0]
        source = found[name].source if name in found else CODE
        if source == CODE:
            raise
        raise ConfigError(f"{error.found}, from {source},", error.expected, error.do) from None
    sources = {name: found[name].source for name in breakers.limits}
    return (breakers if breakers.limits else None), sources


def _of_file() -> dict[str, Setting]:
    told = file_settings().get(TABLE)
    if told is None:
        return {}
    if not isinstance(told.value, dict):
        raise ConfigError(f"{TABLE}={told.value!r} in {told.source}", "expected a table of limits")
    return {name: Setting(value, f"{told.source} {name}") for name, value in told.value.items()}


def _of_environment() -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, kind in _FIELDS.items():
        variable = f"{PREFIX}{name.upper()}"
        text = os.environ.get(variable)
        if text:
            found[name] = Setting(converted(variable, text, kind), variable)
    return found
