"""What a decorator asks to be measured: checked once, carried on the span, read on delivery.

It travels as two attributes of the span, so that a span that another process recovers is measured
alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, Literal, get_args

import msgspec

from llmops_core.errors import ConfigError
from llmops_core.measuring import published

__all__ = [
    "COLLECTORS_KEY",
    "MEASURE_KEY",
    "Measurement",
    "Mode",
    "Request",
    "Strategy",
    "make_request",
    "make_strategy",
    "read_request",
]

logger: Final = logging.getLogger("llmops")

MEASURE_KEY: Final = "llmops.measure"
COLLECTORS_KEY: Final = "llmops.collectors"

Mode = Literal["auto", "token", "capacity", "hybrid"]
Measurement = Mode | Mapping[str, object]
MODES: Final = get_args(Mode)
TEXT_MEASURES: Final = ("char_count", "word_count", "byte_size", "line_count")
IMAGE_MEASURES: Final = ("count", "pixels", "bytes", "format")


class Strategy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How text is measured. The published names of the dictionary form."""

    mode: Mode = "auto"
    #: Whether tokens are told where both would do (``auto``).
    prefer_tokens: bool = True
    #: Whether an estimate is told where no exact count can be had.
    fallback_enabled: bool = True
    #: ``measure_text`` takes both measures of ``hybrid`` at the same time; of decorated calls they
    #: are taken one after the other, beside the application.
    parallel_hybrid: bool = True
    #: False: ``measure_text`` counts on the event loop's thread. Decorated calls are never counted
    #: on the caller's.
    async_tokenization: bool = True
    #: Past it the rest of a batch is estimated. None: no limit but the collector's own.
    tokenization_timeout_ms: float | None = None


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one decorated function asks for."""

    text: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    strategy: Strategy | None = None
    collectors: tuple[str, ...] = ()

    def attributes(self) -> dict[str, str]:
        """Return the request as attributes of a span; none if nothing is asked for."""
        found: dict[str, str] = {}
        if self.text or self.images or self.strategy is not None:
            asked = msgspec.structs.replace(self, collectors=())
            found[MEASURE_KEY] = msgspec.json.encode(asked).decode()
        if self.collectors:
            found[COLLECTORS_KEY] = ",".join(self.collectors)
        return found


def read_request(text: str) -> Request:
    """Read what :meth:`Request.attributes` wrote."""
    return msgspec.json.decode(text, type=Request)


def make_request(
    measure_text: bool | Iterable[str],
    measure_images: bool | Iterable[str],
    collectors: Iterable[object] | None,
    measurement: Measurement | None,
) -> Request:
    """Check a decorator's arguments, or raise ``ConfigError``."""
    strategy = None if measurement is None else make_strategy(measurement)
    if strategy is not None and not strategy.async_tokenization:
        _say_that_counting_stays_beside()
    return Request(
        text=_measures("measure_text", measure_text, TEXT_MEASURES),
        images=_measures("measure_images", measure_images, IMAGE_MEASURES),
        strategy=strategy,
        collectors=published.named("collectors", collectors),
    )


@cache
def _say_that_counting_stays_beside() -> None:
    logger.warning(
        "async_tokenization=False changes nothing for decorated calls: their tokens are counted "
        "beside the program all the same. Do: leave it out, or call measure_text"
    )


def make_strategy(measurement: Measurement) -> Strategy:
    """Return the strategy of a mode's name or of the dictionary form."""
    values = {"mode": measurement} if isinstance(measurement, str) else measurement
    if not isinstance(values, Mapping):
        raise ConfigError(f"measurement={measurement!r}", "expected a mode or a dictionary")
    unknown = [key for key in values if key not in Strategy.__struct_fields__]
    if unknown:
        raise ConfigError(
            f"measurement has {unknown[0]!r}",
            "expected one of " + ", ".join(Strategy.__struct_fields__),
        )
    try:
        made = msgspec.convert(dict(values), Strategy)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"measurement={measurement!r}: {error}", "expected a mode of " + ", ".join(MODES)
        ) from None
    timeout = made.tokenization_timeout_ms
    if timeout is not None and not 0 < timeout < 3_600_000:
        raise ConfigError(
            f"tokenization_timeout_ms={timeout!r}", "expected milliseconds above 0, or None"
        )
    return made


def _measures(name: str, given: object, known: tuple[str, ...]) -> tuple[str, ...]:
    if given is True:
        return known
    if given is False or given is None:
        return ()
    listed: tuple[object, ...] = ()
    if isinstance(given, Iterable) and not isinstance(given, str):
        listed = tuple(given)
    if not listed or any(item not in known for item in listed):
        raise ConfigError(f"{name}={given!r}", "expected a bool, or a list of " + ", ".join(known))
    return tuple(str(item) for item in listed)
