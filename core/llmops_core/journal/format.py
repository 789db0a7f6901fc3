"""The bytes of a journal: how a record is framed, checked, and read back past damage.

A segment (``000001.log``) is a file of records, little-endian::

    magic 4 bytes | length u32 | crc32 u32 | payload

The payload is msgpack, ``[type, body]``: ``s`` spans (body: array of spans), ``r`` a sealed range
(body: ``[first_seq, last_seq]``), ``c`` stored (body: ``[first_seq, last_seq]``).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from llmops_core.span import Span

__all__ = [
    "Damage",
    "Range",
    "Record",
    "encode_range",
    "encode_spans",
    "encode_stored",
    "read_records",
    "segments",
]

MAGIC: Final = b"LJ1\n"
_HEADER: Final = struct.Struct("<4sII")
# A record holds one drain of the intake queue; a length beyond this is damage, not data.
MAX_RECORD_BYTES: Final = 256 * 1024 * 1024

_encoder: Final = msgspec.msgpack.Encoder()
_head: Final = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_spans: Final = msgspec.msgpack.Decoder(list[Span])
_range: Final = msgspec.msgpack.Decoder(tuple[int, int])

Range = tuple[int, int]


class Record(msgspec.Struct, frozen=True):
    """One record as read: spans, or a range that was sealed or stored; and where it lies."""

    type: str
    spans: list[Span]
    range: Range
    start: int
    end: int


class Damage(msgspec.Struct):
    """What could not be read: records (or stretches between records) and their bytes."""

    records: int = 0
    bytes: int = 0


def _frame(record_type: str, body: Any) -> bytes:
    payload = _encoder.encode((record_type, body))
    return _HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def encode_spans(spans: Sequence[Any]) -> bytes:
    """Frame spans as one record; a tuple of a span's values is encoded as the span is."""
    return _frame("s", spans)


def encode_range(first_seq: int, last_seq: int) -> bytes:
    """Frame the note that a range is sealed: it will be written as one batch, also by a replay."""
    return _frame("r", (first_seq, last_seq))


def encode_stored(first_seq: int, last_seq: int) -> bytes:
    """Frame the note that a sealed range is stored."""
    return _frame("c", (first_seq, last_seq))


def segments(folder: Path) -> list[Path]:
    """Return the segments of one writer's journal, oldest first."""
    return sorted(p for p in folder.glob("*.log") if p.stem.isdigit())


def _decode(payload: bytes | memoryview, start: int, end: int) -> Record | None:
    try:
        record_type, body = _head.decode(payload)
        if record_type == "s":
            return Record("s", _spans.decode(body), (0, 0), start, end)
        return Record(record_type, [], _range.decode(body), start, end)
    except msgspec.MsgspecError:
        return None  # counted by the caller as damage


def read_records(data: bytes, offset: int, damage: Damage) -> Iterator[Record]:
    """Yield the whole records of *data* from *offset*; what is damaged is counted and skipped.

    An incomplete record at the very end is not counted: a living writer may be in the middle of
    it. The caller sees it as the bytes after the last record's ``end``.
    """
    size = len(data)
    view = memoryview(data)
    while offset + _HEADER.size <= size:
        magic, length, crc = _HEADER.unpack_from(data, offset)
        start = offset + _HEADER.size
        end = start + length
        sound = magic == MAGIC and length <= MAX_RECORD_BYTES
        if sound and end > size and data.find(MAGIC, start) < 0:
            return  # a torn tail, or a write in progress
        record = None
        if sound and end <= size and zlib.crc32(view[start:end]) == crc:
            record = _decode(view[start:end], offset, end)
        if record is not None:
            yield record
            offset = end
            continue
        following = data.find(MAGIC, offset + 1)
        damage.records += 1
        damage.bytes += (size if following < 0 else following) - offset
        if following < 0:
            return
        offset = following
