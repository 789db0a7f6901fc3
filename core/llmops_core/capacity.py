"""Capacity of text: characters, words, bytes and lines of each span's input and output.

Whoever decodes a journal computes these as the collector does, so they stand apart from it. They
are computed by Arrow kernels over the flat bytes of whole columns, outside of the interpreter lock:
a comparison gives a bit for each byte, and the bits before each text's end are counted 64 at once.

The rules are Python's own, so that you can check a number in a shell:

- characters: ``len(text)``, that is code points
- words: ``len(text.split())``, that is runs of what is not Unicode white space; a language that
  writes no spaces, such as Japanese, counts a whole clause as one word
- bytes: ``len(text.encode())``
- lines: ``text.count("\\n") + 1``, and 0 for an empty text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MEASURES", "SIDES", "capacity_columns", "with_capacity"]

SIDES: Final = ("input", "output")
MEASURES: Final = ("chars", "words", "bytes", "lines")
#: So much text is counted at once: the kernels need about as much scratch.
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
    step = max(1, len(text) * _SLICE_BYTES // max(1, text.nbytes))
    wide = text.cast(pa.large_string())
    parts = [_count_slice(wide.slice(at, step)) for at in range(0, len(text), step)]
    whole = [pa.concat_arrays(pieces) for pieces in zip(*parts, strict=True)]
    if not text.null_count:
        return tuple(whole)
    there = pc.is_valid(text)
    return tuple(pc.if_else(there, counts, None) for counts in whole)


def _count_slice(text: pa.LargeStringArray) -> tuple[pa.Array, ...]:
    """Count without regard to nulls: what a null holds is counted as well, and masked later."""
    import pyarrow as pa
    import pyarrow.compute as pc

    _, offsets, data = text.buffers()
    ends = pa.Array.from_buffers(pa.int64(), len(text) + 1, [None, offsets], offset=text.offset)
    first, last = ends[0].as_py(), ends[len(text)].as_py()
    if first == last:
        return (pa.repeat(pa.scalar(0, pa.int64()), len(text)),) * len(MEASURES)
    raw = pa.Array.from_buffers(pa.uint8(), last - first, [None, data], offset=first)
    ends = pc.subtract(ends, first)
    starts, ends = ends.slice(0, len(text)), ends.slice(1)
    size = pc.subtract(ends, starts)
    least, most = pc.min_max(raw).as_py().values()
    lines = pc.min_element_wise(size, 1)
    space = pc.equal(raw, _byte(32))
    if least < 32:
        breaks = pc.equal(raw, _byte(10))
        lines = pc.add(lines, _bits_between(breaks, starts, ends))
        space = _ascii_spaces(raw, space, breaks)
    words = _words(raw, space, starts, ends)
    if most < 128:
        return size, words, size, lines
    chars = pc.coalesce(pc.utf8_length(text), 0)
    return chars, _unicode_words(text, words, pc.not_equal(chars, size)), size, lines


def _ascii_spaces(raw: pa.Array, space: pa.Array, breaks: pa.Array) -> pa.Array:
    """Add to the blanks what else is white space: line breaks, and what is rare."""
    import pyarrow.compute as pc

    space = pc.or_(space, breaks)
    others = pc.and_not(pc.less(raw, _byte(32)), breaks)
    if not others.true_count:
        return space
    low = pc.and_(pc.greater_equal(raw, _byte(9)), pc.less_equal(raw, _byte(13)))
    return pc.or_(space, pc.and_(others, pc.or_(low, pc.greater_equal(raw, _byte(28)))))


def _words(raw: pa.Array, space: pa.Array, starts: pa.Array, ends: pa.Array) -> pa.Array:
    """Count the bytes that follow white space and are none, and a text's first byte if it is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    before = pa.concat_arrays([pa.array([False]), space.slice(0, len(space) - 1)])
    begun = pc.and_not(before, space)
    filled = pc.less(starts, ends)
    inside = _bits_between(begun, pc.add(starts, filled.cast(pa.int64())), ends)
    # An empty text at the very end has no first byte: any will do.
    first = space.take(pc.min_element_wise(starts, len(raw) - 1))
    return pc.add(inside, pc.and_not(filled, first).cast(pa.int64()))


def _unicode_words(text: pa.Array, words: pa.Array, beyond: pa.Array) -> pa.Array:
    """Count the words of texts beyond ASCII by ``str.split``, which knows all of Unicode."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = text.filter(beyond).to_pylist()
    counted = [0 if value is None else len(value.split()) for value in values]
    return pc.replace_with_mask(words, beyond, pa.array(counted, pa.int64()))


def _bits_between(bits: pa.BooleanArray, starts: pa.Array, ends: pa.Array) -> pa.Array:
    """Return how many bits are set from each start up to its end."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Padded, so that each position, the last one too, lies within a whole word of 64.
    padded = pa.concat_arrays([bits, pa.array([False] * (128 - len(bits) % 64))])
    words = pa.Array.from_buffers(pa.uint64(), len(padded) // 64, [None, padded.buffers()[1]])
    ones = _ones(words)
    # Of the words before each word: the sum up to and with it, less its own.
    before = pc.subtract(pc.cumulative_sum(ones), ones)

    def up_to(position: pa.Array) -> pa.Array:
        at = position.cast(pa.uint64())
        word = pc.shift_right(at, _word(6))
        below = pc.subtract(pc.shift_left(_word(1), pc.bit_wise_and(at, _word(63))), _word(1))
        rest = _ones(pc.bit_wise_and(words.take(word), below))
        return pc.add(before.take(word), rest)

    return pc.subtract(up_to(ends), up_to(starts)).cast(pa.int64())


def _ones(words: pa.UInt64Array) -> pa.UInt64Array:
    """Return how many bits are set in each word: sums of two, four and eight bits, then all."""
    import pyarrow.compute as pc

    def masked(values: pa.Array, mask: int) -> pa.Array:
        return pc.bit_wise_and(values, _word(mask))

    def shifted(values: pa.Array, by: int) -> pa.Array:
        return pc.shift_right(values, _word(by))

    twos, fours, eights = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F
    words = pc.subtract(words, masked(shifted(words, 1), twos))
    words = pc.add(masked(words, fours), masked(shifted(words, 2), fours))
    words = masked(pc.add(words, shifted(words, 4)), eights)
    return shifted(pc.multiply(words, _word(0x0101010101010101)), 56)


def _byte(value: int) -> pa.Scalar:
    import pyarrow as pa

    return pa.scalar(value, pa.uint8())


def _word(value: int) -> pa.Scalar:
    import pyarrow as pa

    return pa.scalar(value, pa.uint64())
