"""Capacity of text: characters, words, bytes and lines of each span's input and output.

Whoever decodes a journal computes these as the collector does, so they stand apart from it. They
are computed by Arrow kernels over whole columns, outside of the interpreter lock.

The rules are Python's own, so that you can check a number in a shell:

- characters: ``len(text)``, that is code points
- words: ``len(text.split())``, that is runs of what is not Unicode white space; a language that
  writes no spaces, such as Japanese, counts a whole clause as one word
- bytes: ``len(text.encode())``
- lines: ``text.count("\\n") + 1``, and 0 for an empty text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MEASURES", "SIDES", "capacity_columns", "with_capacity"]

SIDES: Final = ("input", "output")
MEASURES: Final = ("chars", "words", "bytes", "lines")
# The word count needs a few bytes of scratch for each byte of text: at most this much text at once.
_SLICE_BYTES: Final = 8 * 1024 * 1024


def capacity_columns(side: str, text: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """Return the four capacity columns of one side, ``input`` or ``output``; null without text."""
    import pyarrow as pa

    chunks = [_counts(chunk) for chunk in text.chunks]
    return {
        f"{side}_{measure}": pa.chunked_array([chunk[at] for chunk in chunks], type=pa.int64())
        for at, measure in enumerate(MEASURES)
    }


def with_capacity(table: pa.Table) -> pa.Table:
    """Return *table* with its capacity columns filled as delivery fills them.

    For readers of a journal, whose spans no collector has seen yet: the collector is pure, so a
    row read from the journal equals the row that will be stored.
    """
    import pyarrow.compute as pc

    for side in SIDES:
        for name, counted in capacity_columns(side, table[side]).items():
            position = table.schema.get_field_index(name)
            values = pc.coalesce(counted, table[name])  # null keeps what is there
            table = table.set_column(position, table.schema.field(position), values)
    return table


def _counts(text: pa.Array) -> tuple[pa.Array, ...]:
    """Return characters, words, bytes and lines of one array of texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if text.null_count == len(text):
        return (pa.nulls(len(text), pa.int64()),) * len(MEASURES)
    chars = pc.utf8_length(text).cast(pa.int64())
    size = pc.binary_length(text).cast(pa.int64())
    breaks = pc.count_substring(text, pattern="\n").cast(pa.int64())
    lines = pc.if_else(pc.equal(size, 0), 0, pc.add(breaks, 1)).cast(pa.int64())
    return chars, _words(text, chars, size), size, lines


def _words(text: pa.Array, chars: pa.Array, size: pa.Array) -> pa.Array:
    """Count words: ASCII texts by kernels, others by ``str.split``, which knows all of Unicode."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(text):
        return pa.array([], pa.int64())
    plain = pc.fill_null(pc.equal(chars, size), True)
    step = max(1, len(text) * _SLICE_BYTES // max(1, text.nbytes))
    parts = [_ascii_words(text.slice(start, step)) for start in range(0, len(text), step)]
    counts = pc.if_else(pc.is_valid(text), pa.concat_arrays(parts), None).cast(pa.int64())
    if pc.all(plain).as_py():
        return counts
    other = pc.invert(plain)
    replaced = [len(value.split()) for value in text.filter(other).to_pylist()]
    return pc.replace_with_mask(counts, other, pa.array(replaced, pa.int64()))


def _ascii_words(text: pa.Array) -> pa.Array:
    """Count words over the flat bytes of an array, outside of the interpreter lock."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # A line break after each text, so that the next text's first word starts after white space.
    joined = pc.binary_join_element_wise(pc.fill_null(text, ""), "", "\n").cast(pa.large_binary())
    _, offset_buffer, data = joined.buffers()
    offsets = pa.Array.from_buffers(pa.int64(), len(joined) + 1, [None, offset_buffer])
    raw = pa.Array.from_buffers(pa.uint8(), data.size, [None, data])
    raw = raw.slice(0, offsets[len(joined)].as_py())
    space = pc.or_(_between(raw, 9, 13), _between(raw, 28, 32))
    before = pa.concat_arrays([pa.array([True]), space.slice(0, len(space) - 1)])
    starts = pc.and_not(before, space).cast(pa.int32())
    total = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(starts)])
    at = total.take(offsets)
    return pc.subtract(at.slice(1), at.slice(0, len(joined)))


def _between(values: pa.Array, low: int, high: int) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    shifted = pc.subtract(values, pa.scalar(low, pa.uint8()))  # wraps below zero
    return pc.less_equal(shifted, pa.scalar(high - low, pa.uint8()))
