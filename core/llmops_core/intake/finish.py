"""Makes drafts into spans: content to text, sanitised, hashed, typed, bounded.

Runs on the intake thread, before the journal: nothing that a storage refuses for its form (NUL, lone
surrogates, wrong types) goes any further. Total: a draft that cannot be a span costs itself alone.

What one drain of the queue gave is finished column by column, which takes a third of the time that
span by span takes; the few drafts with a value that does not fit its column are finished alone, to
the same end (test_finish).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec

from llmops_core.batch import SpanColumns
from llmops_core.freeze.content import encode_content
from llmops_core.freeze.freezer import Frozen
from llmops_core.intake.columns import ColumnChecks, gather
from llmops_core.intake.values import MAX_ATTRIBUTES, MAX_NAME, MAX_TEXT, Values, scalar_text
from llmops_core.schema import COLUMN_NAMES
from llmops_core.span import KINDS, OUTCOMES, Span

__all__ = ["Finisher"]

_KINDS: Final = frozenset(KINDS)
_OUTCOMES: Final = frozenset(OUTCOMES)
_SIDES: Final = ("input", "output")

Draft = dict[str, Any]


class Finisher:
    """Turns drafts into spans of one writer. Counts what it had to change, by reason."""

    def __init__(self, key: bytes, constants: dict[str, str | None]) -> None:
        self._hash = _keyed_hash(key)
        self._values = Values()
        self._checks = ColumnChecks(self._values)
        self._constants = {
            k: self._values.clean(v, MAX_NAME) for k, v in constants.items() if v is not None
        }

    @property
    def sanitized(self) -> dict[str, int]:
        """What was changed, by reason."""
        return self._values.counts

    # ---- many ----

    def finish_all(
        self,
        drafts: Sequence[Draft],
        writer_id: str,
        first_seq: int,
        failed: Callable[[Exception], None],
    ) -> SpanColumns:
        """Return the spans as columns, numbered from *first_seq*.

        *failed* is told of each draft that lacks what every span needs; the others are numbered
        without it.
        """
        try:
            columns, odd = gather(drafts)
            if len(odd) < len(drafts):
                columns = self._finished(columns, len(drafts) - len(odd), writer_id)
        except Exception:  # one of them is stranger than a look at its columns can tell
            columns, odd = {}, set(range(len(drafts)))
        if odd:
            columns = self._with_odd(drafts, columns, odd, writer_id, failed)
        if columns:
            columns["seq"] = list(range(first_seq, first_seq + len(columns["span_id"])))
        return columns

    def _finished(self, columns: SpanColumns, count: int, writer_id: str) -> SpanColumns:
        """Clean the values of columns that hold nothing odd, and add what every span has."""
        contents = [(side, columns.pop(side, None)) for side in _SIDES]
        columns = self._checks.cleaned(columns)
        starts, ends = columns["start_time"], columns["end_time"]
        columns["end_time"] = list(map(max, starts, ends))
        names = columns.get("name")
        if names is None:
            columns["name"] = columns["kind"]
        elif None in names:
            pairs = zip(names, columns["kind"], strict=True)
            columns["name"] = [kind if name is None else name for name, kind in pairs]
        for constant, value in self._constants.items():
            column = columns.get(constant) or [None] * count
            columns[constant] = [value if v is None else v for v in column]
        for side, frozen in contents:
            if frozen is not None:
                self._add_contents(columns, side, frozen)
        columns["writer_id"] = [writer_id] * count
        return columns

    def _add_contents(self, columns: SpanColumns, side: str, frozen: list[Any]) -> None:
        """Add the five columns of one side; a draft's own value stays where there is no content."""
        count = len(frozen)
        texts: list[Any] = [None] * count
        cut, size, hashes, mode = (
            columns.get(name) or [None] * count
            for name in (f"{side}_truncated", f"{side}_size", f"{side}_hash", "content_mode")
        )
        for at, one in enumerate(frozen):
            if type(one) is not Frozen:
                continue
            value = one.value
            if type(value) is str and value.isascii() and "\0" not in value:
                texts[at], cut[at], size[at] = value, one.truncated, len(value) + one.cut_bytes
            elif value is not None:
                texts[at], cut[at], size[at] = self._encoded(one)
            else:
                if one.truncated:  # shed under overload: say that something was there
                    cut[at], size[at] = True, one.cut_bytes
                continue
            hashes[at] = self._hash(texts[at].encode())
            mode[at] = "full"
        columns[side], columns[f"{side}_truncated"], columns[f"{side}_size"] = texts, cut, size
        columns[f"{side}_hash"], columns["content_mode"] = hashes, mode

    def _with_odd(
        self,
        drafts: Sequence[Draft],
        columns: SpanColumns,
        odd: set[int],
        writer_id: str,
        failed: Callable[[Exception], None],
    ) -> SpanColumns:
        """Finish the odd drafts one by one, and put each in its place."""
        regular = zip(*(columns.get(name) or repeat(None) for name in COLUMN_NAMES), strict=False)
        rows: list[tuple[Any, ...]] = []
        for at, draft in enumerate(drafts):
            if at not in odd:
                rows.append(next(regular))
                continue
            try:
                rows.append(msgspec.structs.astuple(self.finish(draft, writer_id, 0)))
            except Exception as error:
                failed(error)
        named = zip(COLUMN_NAMES, zip(*rows, strict=True), strict=True) if rows else ()
        return {name: list(c) for name, c in named if c.count(None) < len(c)}

    # ---- one ----

    def finish(self, draft: Draft, writer_id: str, seq: int) -> Span:
        """Return the span of one draft. Raises only if what every span needs is missing."""
        values: dict[str, Any] = dict(self._constants)
        strange: dict[str, Any] = {}
        for name, value in draft.items():
            if value is None or name in _SIDES:
                continue
            coerce = self._values.coerce.get(name)
            if coerce is None:
                strange[name] = value
                continue
            coerced = coerce(name, value)
            if coerced is not None:
                values[name] = coerced
            else:
                strange[name] = value
        for side in _SIDES:
            self._content(values, side, draft.get(side))
        if strange:
            self._keep_strange(values, strange)
        if values.get("kind") not in _KINDS:
            values["kind"] = "chain"
        if values.get("outcome") not in _OUTCOMES:
            values["outcome"] = "incomplete"
        values.setdefault("name", values["kind"])
        values["end_time"] = max(values["start_time"], values["end_time"])
        return Span(**values, writer_id=writer_id, seq=seq)

    def _content(self, values: dict[str, Any], side: str, frozen: Any) -> None:
        if type(frozen) is not Frozen:
            return
        if frozen.value is None:
            if frozen.truncated:
                values[side + "_truncated"] = True
                values[side + "_size"] = frozen.cut_bytes
            return
        text, values[side + "_truncated"], values[side + "_size"] = self._encoded(frozen)
        values[side] = text
        values[side + "_hash"] = self._hash(text.encode())
        values["content_mode"] = "full"

    def _encoded(self, frozen: Frozen) -> tuple[str, bool, int]:
        content = encode_content(frozen)
        if content.nul:
            self._values.count("nul")
        if content.surrogates:
            self._values.count("surrogate")
        return content.text, content.truncated, content.size

    def _keep_strange(self, values: dict[str, Any], strange: dict[str, Any]) -> None:
        """Keep what no column takes as attributes, where it is plain; count it either way."""
        attributes = dict(values.get("attributes") or {})
        for name, value in strange.items():
            if name.startswith("_"):
                continue
            known = name in self._values.coerce
            self._values.count("wrong_type" if known else "unknown_field")
            text = value if type(value) is str else scalar_text(value)
            if text is not None and len(attributes) < MAX_ATTRIBUTES:
                clean = self._values.clean
                attributes[clean(str(name), MAX_NAME)] = clean(text, MAX_TEXT)
        if attributes:
            values["attributes"] = attributes


def _keyed_hash(key: bytes) -> Callable[[bytes], str]:
    """Return HMAC-SHA256 with *key*, cut to 32 digits.

    By its definition, with both pads hashed once: ``hmac.digest`` sets up OpenSSL's machinery each
    time, which takes longer than hashing a short text.
    """
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def digest(data: bytes) -> str:
        inside, outside = inner.copy(), outer.copy()
        inside.update(data)
        outside.update(inside.digest())
        return outside.hexdigest()[:32]

    return digest
