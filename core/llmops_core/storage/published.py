"""The published form of a storage: ``StorageBackend`` with ``initialize``, ``write_event``,
``write_batch`` and ``close``. It is given events, the published record of one call, and is not read.

:func:`adapted` makes a storage of such an object; it is called wherever a storage is accepted.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from llmops_core.errors import StorageError
from llmops_core.measuring.request import MEASURE_KEY

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.query import SpanQuery
    from llmops_core.span import Span

__all__ = [
    "ImageMetrics",
    "MetricEvent",
    "PublishedStorage",
    "StorageBackend",
    "TextMetrics",
    "adapted",
    "event_of",
]

EVENT_VERSION: Final = "1.0.0"
_METHODS: Final = ("initialize", "write_event", "write_batch", "close")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
#: The published names of kinds; all others are called as they are.
_TYPES: Final = {"llm": "llm_call", "workflow": "agent_workflow"}
#: Measurements that ``measure_text`` makes: they have fields of their own.
_TEXT: Final = ("char_count", "word_count", "byte_size", "line_count")


class TextMetrics(msgspec.Struct, frozen=True):
    """What was measured of a call's text; None where it was not."""

    char_count: int | None = None
    word_count: int | None = None
    byte_size: int | None = None
    line_count: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    custom_metrics: dict[str, Any] = {}


class ImageMetrics(msgspec.Struct, frozen=True):
    """What was measured of a call's images, all of them together."""

    count: int | None = None
    total_pixels: int | None = None
    file_size_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    custom_metrics: dict[str, Any] = {}


class MetricEvent(msgspec.Struct, frozen=True):
    """One call, as the published product told it to a storage. ``span`` is all that is known of it."""

    #: The same whenever the same span is written again, so it can be the key of what you store.
    event_id: uuid.UUID
    #: The trace's id where the call had no session.
    session_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None
    operation_name: str
    operation_type: str
    #: When the call ended, in UTC.
    timestamp: dt.datetime
    duration_ms: float | None
    text_metrics: TextMetrics | None
    image_metrics: ImageMetrics | None
    custom_attributes: dict[str, Any]
    error: str | None
    error_type: str | None
    span: Span
    schema_version: str = EVENT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain values that JSON knows, without ``span``."""
        made = self.model_dump()
        return {**made, "event_id": str(self.event_id), "timestamp": self.timestamp.isoformat()}

    def model_dump(self) -> dict[str, Any]:
        """Return the event as a dictionary, without ``span``."""
        made = {n: getattr(self, n) for n in self.__struct_fields__ if n != "span"}
        for name in ("text_metrics", "image_metrics"):
            if made[name] is not None:
                made[name] = msgspec.structs.asdict(made[name])
        return made

    def model_dump_json(self) -> str:
        """Return the event as JSON text."""
        return json.dumps(self.to_dict())

    json = model_dump_json


class StorageBackend(ABC):
    """Where events are written. Subclass it, or have its four methods.

    Pass the object wherever a storage is accepted. It is write-only: a query raises a
    ``StorageError`` that says so, unless your class has ``async def query(self, query)`` as a
    :class:`~llmops_core.Storage` has.
    """

    @abstractmethod
    async def initialize(self) -> None:
        """Make ready. Called once, when the monitor opens; what you raise is a set-up error."""

    @abstractmethod
    async def write_event(self, event: MetricEvent) -> None:
        """Store one event, or raise. Called where :meth:`supports_batch_writes` says no."""

    @abstractmethod
    async def write_batch(self, events: list[MetricEvent]) -> None:
        """Store every event, or raise. Called on the storage's own thread, one batch at a time.

        If you raise, the batch stays in the journal and comes again, and so it does after a crash:
        make ``event_id`` the key of what you store, and nothing is stored twice.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release what ``initialize`` took."""

    def supports_batch_writes(self) -> bool:
        """Whether batches go to :meth:`write_batch`; else each event goes to :meth:`write_event`."""
        return True


class PublishedStorage:
    """A storage that hands each batch as events to an object of the published form."""

    def __init__(self, backend: StorageBackend) -> None:
        self.backend = backend
        self.read_only = False

    async def open(self) -> None:
        """Call ``initialize``; raise where a reader opens what cannot be read."""
        if self.read_only and self._query is None:
            raise self._unreadable()
        await self.backend.initialize()

    async def write(self, batch: SpanBatch) -> None:
        """Hand over the batch as events. Raises what the backend raises."""
        events = [event_of(span) for span in batch.copied().rows]
        # A class that has the four methods only takes batches.
        supports = getattr(self.backend, "supports_batch_writes", None)
        if supports is None or supports():
            await self.backend.write_batch(events)
            return
        for event in events:
            await self.backend.write_event(event)

    async def query(self, query: SpanQuery) -> pa.Table:
        """Let the backend answer, or say that it cannot."""
        if self._query is None:
            raise self._unreadable()
        return await self._query(query)

    async def close(self) -> None:
        """Close the backend."""
        await self.backend.close()

    @property
    def _query(self) -> Callable[[SpanQuery], Any] | None:
        return getattr(self.backend, "query", None)

    def _unreadable(self) -> StorageError:
        name = type(self.backend).__name__
        return StorageError(
            f"{name} cannot be read back: it is a StorageBackend, which is only written to",
            "expected a storage with a query",
            f"give {name} an `async def query(self, query)`, or read what it wrote by other means",
        )


def adapted(storage: object) -> object:
    """Return an object of the published form as a storage, and every other object as it is."""
    if isinstance(storage, type) or callable(getattr(storage, "open", None)):
        return storage
    if all(callable(getattr(storage, name, None)) for name in _METHODS):
        return PublishedStorage(cast("StorageBackend", storage))
    return storage


def event_of(span: Span) -> MetricEvent:
    """Return the event of a span."""
    failed = span.outcome == "error"
    return MetricEvent(
        event_id=uuid.uuid5(uuid.NAMESPACE_OID, f"llmops:{span.span_id}"),
        session_id=span.session_id or span.trace_id,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        operation_name=span.name,
        operation_type=_TYPES.get(span.kind, span.kind),
        timestamp=_moment(span.end_time),
        duration_ms=span.duration_ms,
        text_metrics=_text_metrics(span),
        image_metrics=_image_metrics(span),
        custom_attributes=_attributes(span),
        error=(span.error_message or span.error_type or span.outcome) if failed else None,
        error_type=span.error_type,
        span=span,
    )


def _moment(micros: int) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return _LAST if micros > 0 else _EPOCH


def _text_metrics(span: Span) -> TextMetrics | None:
    """Return what the call asked to be measured, else what is known of its output."""
    measured: Mapping[str, float] = span.measurements or {}
    if any(name in measured for name in _TEXT):
        counts: Sequence[float | None] = [measured.get(name) for name in _TEXT]
    else:
        counts = [span.output_chars, span.output_words, span.output_bytes, span.output_lines]
    tokens = [span.input_tokens, span.output_tokens]
    if all(value is None for value in (*counts, *tokens)):
        return None
    known = [value for value in tokens if value is not None]
    chars, words, size, lines = (None if value is None else int(value) for value in counts)
    return TextMetrics(
        char_count=chars,
        word_count=words,
        byte_size=size,
        line_count=lines,
        input_tokens=span.input_tokens,
        output_tokens=span.output_tokens,
        total_tokens=sum(known) if known else None,
    )


def _image_metrics(span: Span) -> ImageMetrics | None:
    if not span.image_count:
        return None
    return ImageMetrics(span.image_count, span.image_pixels, span.image_bytes)


def _attributes(span: Span) -> dict[str, Any]:
    """Return attributes and other measurements, and what has a column here and had none there."""
    made: dict[str, Any] = dict(span.attributes or {})
    made.pop(MEASURE_KEY, None)
    made |= {k: v for k, v in (span.measurements or {}).items() if k not in _TEXT}
    columns = {
        "model": span.model,
        "provider": span.provider,
        "agent": span.agent,
        "estimated_cost_usd": span.cost_usd,
    }
    return made | {name: value for name, value in columns.items() if value is not None}
