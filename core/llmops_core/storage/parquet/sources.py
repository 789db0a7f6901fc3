"""What a compacted file was made of. Its footer says so, and the rest follows from it.

A file appears in one step, by its rename, and from then on whoever sees it knows which other files
it replaces: nothing else has to be written, and nothing can be left half said after a crash. Files
never change, so a footer is read once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_core.journal.ranges import Ranges
from llmops_core.storage.parquet.files import RangeFile, list_day

if TYPE_CHECKING:
    from pyarrow import fs

__all__ = ["SOURCES_KEY", "CompactedFiles", "Sources", "StoredRanges", "joined"]

SOURCES_KEY: Final = b"llmops.sources"
#: How often a day whose files go while they are read is listed again; whoever writes comes back later.
_MOST_TRIES: Final = 50
_MOST_CACHED: Final = 10_000


class Sources(NamedTuple):
    """The ranges of each writer that a file holds, and the compacted files that it replaces."""

    ranges: dict[str, Ranges]
    files: frozenset[str]

    def cover(self, file: RangeFile) -> bool:
        """Whether everything in *file*, of the same day, is held here too."""
        if file.compacted:
            return Path(file.path).name in self.files
        ranges = self.ranges.get(file.writer)
        return ranges is not None and _holds(ranges, file.first, file.last)

    def encode(self) -> bytes:
        """Return them as text for a footer."""
        ranges = {writer: list(found) for writer, found in sorted(self.ranges.items())}
        return json.dumps({"ranges": ranges, "files": sorted(self.files)}).encode()


def joined(files: Iterable[RangeFile], compacted: Iterable[Sources]) -> Sources:
    """Return the sources of a file that is made of *files*; *compacted* are those of some of them."""
    ranges: dict[str, Ranges] = {}
    names: set[str] = set()
    for file in files:
        if file.compacted:
            names.add(Path(file.path).name)
        else:
            ranges.setdefault(file.writer, Ranges()).add(file.first, file.last)
    for sources in compacted:
        names |= sources.files
        for writer, found in sources.ranges.items():
            for first, last in found:
                ranges.setdefault(writer, Ranges()).add(first, last)
    return Sources(ranges, frozenset(names))


class CompactedFiles:
    """Reads what compacted files replace, and remembers it. Safe from several threads.

    *filesystem* is where the files are, this machine's own if it is None; *listing* lists a day.
    """

    def __init__(
        self,
        filesystem: fs.FileSystem | None = None,
        listing: Callable[[Path], list[RangeFile]] = list_day,
    ) -> None:
        self._filesystem = filesystem
        self._listing = listing
        self._known: dict[str, Sources] = {}

    def sources(self, path: str) -> Sources | None:
        """Return what a file was made of; None if its footer does not say or cannot be read.

        Raises ``FileNotFoundError`` if it is gone.
        """
        known = self._known.get(path)
        if known is None:
            known = _read(path, self._filesystem)
            if known is None:
                return None
            if len(self._known) >= _MOST_CACHED:
                self._known.clear()
            self._known[path] = known
        return known

    def visible(self, files: Sequence[RangeFile]) -> list[RangeFile]:
        """Leave out the files that another one of the same day replaces.

        A footer is only read where a day has a compacted file and another one, which is so while
        a compaction is under way and where spans came late.
        """
        by_day: dict[str, list[RangeFile]] = {}
        for file in files:
            by_day.setdefault(file.day, []).append(file)
        return [file for day in by_day.values() for file in self._visible(day)]

    def _visible(self, files: list[RangeFile]) -> list[RangeFile]:
        if len(files) == 1 or not any(f.compacted for f in files):
            return files
        found = [s for f in files if f.compacted and (s := self.sources(f.path)) is not None]
        return [f for f in files if not any(s.cover(f) for s in found)]

    def held(self, day: Path, writer: str) -> Ranges:
        """Return the numbers of a writer that compacted files of the day speak for."""
        tries = 0
        while True:
            tries += 1
            try:
                found = [self.sources(f.path) for f in self._listing(day) if f.compacted]
            except FileNotFoundError:
                if tries == _MOST_TRIES:
                    raise
                continue  # compacted anew since it was listed
            known = [s.ranges[writer] for s in found if s is not None and writer in s.ranges]
            return Ranges(r for ranges in known for r in ranges)


class StoredRanges:
    """Which numbers of a writer's journal lie in the files of a day."""

    def __init__(self, files: Iterable[RangeFile], compacted: CompactedFiles) -> None:
        self._compacted = compacted
        self._ranges: dict[tuple[str, str], Ranges] = {}
        self._unread: dict[str, list[str]] = {}
        for file in files:
            if file.compacted:
                self._unread.setdefault(file.day, []).append(file.path)
            else:
                self._add(file.day, file.writer, file.first, file.last)

    def has(self, day: str, writer: str, number: int) -> bool:
        """Whether the span of that number is in a file of the day."""
        for path in self._unread.pop(day, ()):
            sources = self._compacted.sources(path)
            for name, ranges in sources.ranges.items() if sources else ():
                for first, last in ranges:
                    self._add(day, name, first, last)
        ranges_of_writer = self._ranges.get((day, writer))
        return ranges_of_writer is not None and number in ranges_of_writer

    def _add(self, day: str, writer: str, first: int, last: int) -> None:
        self._ranges.setdefault((day, writer), Ranges()).add(first, last)


def _holds(ranges: Ranges, first: int, last: int) -> bool:
    return len(ranges.within(first, last)) == last - first + 1


def _read(path: str, filesystem: fs.FileSystem | None) -> Sources | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        noted = (pq.read_metadata(path, filesystem=filesystem).metadata or {}).get(SOURCES_KEY)
        return None if noted is None else _decode(json.loads(noted))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _decode(noted: Any) -> Sources:
    ranges = {
        str(writer): Ranges((int(first), int(last)) for first, last in found)
        for writer, found in noted["ranges"].items()
    }
    return Sources(ranges, frozenset(map(str, noted["files"])))
