"""What a generator yields: its first item's time, and a bounded copy of its items as the output."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llmops_core.decorating.operation import Operation, is_a, is_cancelled
from llmops_core.decorating.usage import usage_fields
from llmops_core.freeze.freezer import Frozen
from llmops_core.intake.drafts import span_id_of
from llmops_core.measuring.published import keep_live
from llmops_core.nesting import ActiveCall

__all__ = ["Items"]

MAX_ITEMS: Final = 1_000
MAX_TEXTS: Final = 100_000
MAX_CHARS: Final = 1_000_000


class Items:
    """The items of one run of a generator. Texts only become one text; others stay a list.

    Texts are kept by reference; other items are copied when they are yielded, as the consumer may
    change them.
    """

    def __init__(self, operation: Operation, call: ActiveCall) -> None:
        self._operation = operation
        self._call = call
        self._recorder: Any = call.recorder
        self._kept: list[Any] = []
        self._texts = True
        self._chars = 0
        self._omitted = 0
        self._cut = 0
        self._first = True
        self._left = False
        self._closed = False
        self._is_model = operation.kind == "llm"
        self._usage: dict[str, Any] = {}

    def add(self, item: object) -> None:
        """Take an item. Called on the consumer's thread; raises only where a breaker stops the run."""
        self._closed = False
        try:
            if self._first:
                self._first = False
                self._recorder.mark(self._call.run_id)
            if type(item) is str:
                size = len(item)
                if self._chars + size <= MAX_CHARS and len(self._kept) < MAX_TEXTS:
                    self._kept.append(item)
                    self._chars += size
                else:
                    self._add_start(item)
            else:
                self._texts = False
                if (
                    self._is_model
                ):  # a provider's stream tells its usage once, or more and more of it
                    self._usage.update(usage_fields(item))
                self._add_other(item)
        except Exception as error:
            self._recorder.report("item", error)
        if self._recorder.stops:
            self._recorder.check(self._call.run_id)

    def finish(self, value: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record that the generator ended; *value* is what it returned."""
        if self._closed:  # it may end quietly then, but nobody read it to its end
            self.fail(GeneratorExit())
            return
        operation, call = self._operation, self._call
        try:
            if operation.collectors:
                span_id = span_id_of(call.run_id)
                keep_live(span_id, operation.collectors, self._live(value), args, kwargs)
            if self._is_model and value is not None:
                self._usage.update(usage_fields(value))
            operation.end(call, {"outcome": "ok", "output": self._output(), **self._usage})
        except Exception as error:
            self._recorder.report("finish", error)

    def is_left_by(self, thrown: BaseException) -> None:
        """Note what was thrown in while the reader was at work, or that it closes the generator.

        A reader that is cancelled learns it where it waits itself. If the generator is told so
        between two items, its reader is gone, and the event loop cancels the closing of it.
        """
        self._left = is_cancelled(thrown)
        self._closed = is_a(thrown, GeneratorExit)

    def fail(self, error: BaseException) -> None:
        """Record that the generator raised, was closed or was cancelled."""
        if self._left and is_cancelled(error):
            error = GeneratorExit()
        output = None
        try:
            output = self._output() if self._kept else None
        except Exception as failure:
            self._recorder.report("finish", failure)
        self._operation.finish_error(self._call, error, output, self._usage)

    def _add_start(self, item: str) -> None:
        """Keep what there is room for: the whole would be joined at the end, and kept until then."""
        left = max(MAX_CHARS - self._chars, 0) if len(self._kept) < MAX_TEXTS else 0
        self._omit(len(item) - left)
        if left > 0:
            self._kept.append(item[:left])
            self._chars += left

    def _add_other(self, item: object) -> None:
        if len(self._kept) >= MAX_ITEMS or self._chars >= MAX_CHARS:
            self._omit(0)
            return
        frozen = self._recorder.freeze(item)
        self._kept.append(frozen.value)
        self._chars += frozen.weight
        if frozen.truncated:
            self._omitted += 1
            self._cut += frozen.cut_bytes

    def _omit(self, size: int) -> None:
        self._omitted += 1
        self._cut += size

    def _live(self, value: object) -> object:
        if value is not None:
            return value
        return "".join(self._kept) if self._texts else self._kept

    def _output(self) -> Frozen:
        if not self._texts:  # copies already: nothing in them is the application's
            return Frozen(self._kept, self._omitted > 0, self._cut, self._chars)
        frozen: Frozen = self._recorder.freeze("".join(self._kept))
        if not self._omitted:
            return frozen
        return msgspec.structs.replace(
            frozen, truncated=True, cut_bytes=frozen.cut_bytes + self._cut
        )
