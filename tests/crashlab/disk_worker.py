"""One process beside the writers of a folder: a reader that checks, or a compactor without a pause.

A reader prints a line for each read, ``r SPANS``, and one for each thing that must not be,
``bad ...``. A compactor prints ``c FILES`` for each file it has merged away.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from llmops_core import StorageReader, open_storage
from llmops_core.storage.parquet.compaction import Compactor


def say(line: str) -> None:
    print(line, flush=True)


class Reader:
    """Remembers what it has read: a span that was there once may never be missing again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        self.checked: set[Path] = set()

    def run(self) -> None:
        """Read with a reader that stays open, and now and then with a new one."""
        while True:
            # On a machine with a dozen busy processes a read takes as long as it takes.
            with open_storage(f"parquet:{self.folder}", timeout=600) as storage:
                for _ in range(5):
                    self.read(storage)
                    self.check_files()

    def read(self, storage: StorageReader) -> None:
        ids = storage.query(columns=["span_id"])["span_id"].to_pylist()
        found = set(ids)
        if len(found) != len(ids):
            say(f"bad {len(ids) - len(found)} spans twice")
        if not self.seen <= found:
            say(f"bad {len(self.seen - found)} spans vanished")
        self.seen = found
        say(f"r {len(ids)}")

    def check_files(self) -> None:
        for path in set(self.folder.glob("*/*.parquet")) - self.checked:
            try:
                pq.read_metadata(path)
            except FileNotFoundError:
                pass  # a name may vanish; what is there must be readable
            except Exception as error:
                say(f"bad {path.name} cannot be read: {type(error).__name__}")
            self.checked.add(path)


def compact(folder: Path) -> None:
    while True:
        report = Compactor(folder, today=True, grace_seconds=1).run()
        say(f"c {report.files_before}")
        for failed in report.failed:
            say(f"bad compaction failed: {failed}")
        time.sleep(0.2)


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    try:
        Reader(where).run() if what == "read" else compact(where)
    except Exception as error:
        say(f"bad {what}: {type(error).__name__}: {error}")
