"""Bytes that are flipped, zeroed or cut off, in journals and in Parquet files; and races of recoverers.

Each case damages one stretch of one file. What lies in no damaged record, or in another file, must be
read and recovered; nothing may raise.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from rows import Row

from llmops_core import open_storage
from llmops_core.batch import SpanBatch
from llmops_core.journal.format import Damage, read_records, segments
from llmops_core.journal.recovery import recover
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.span import Span
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet import compaction as compaction_module
from llmops_core.storage.parquet.files import list_files
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store


class Hit(NamedTuple):
    """The stretch that was damaged."""

    first: int
    last: int
    how: str


def damage(path: Path, rng: random.Random) -> Hit:
    """Flip, zero or cut off some bytes."""
    data = bytearray(path.read_bytes())
    how = rng.choice(("flip", "flip", "zero", "cut"))
    first = rng.randrange(len(data))
    if how == "cut":
        path.write_bytes(data[:first])
        return Hit(first, len(data), how)
    last = min(len(data), first + rng.choice((1, 1, 8, 200)))
    for at in range(first, last):
        data[at] = 0 if how == "zero" else data[at] ^ (1 << rng.randrange(8))
    path.write_bytes(data)
    return Hit(first, last, how)


def dead_journal(root: Path) -> Journal:
    """Make a journal of 40 records of spans, of which the first 20 are stored."""
    journal = Journal(root, new_writer_id(), max_bytes=2**30)
    for first in range(1, 81, 2):
        rows = [make_span(n, seq=n, input="x" * (n * 7 % 300)) for n in (first, first + 1)]
        journal.append([row.replace(writer_id=journal.writer_id) for row in rows])
    journal.seal(1, 40)
    journal.mark_stored(1, 40)
    journal.replace_open([make_span(900, outcome="incomplete", writer_id=journal.writer_id)])
    journal.release()
    return journal


def journals(cases: int, seed: int, folder: Path) -> Row:
    """Damage a journal, recover it, and hold what was stored against the records that are whole."""
    rng, bad, damaged = random.Random(seed), [], 0
    template = folder / "template"
    name = dead_journal(template).folder.name
    (segment,) = segments(template / name)
    records = list(read_records(segment.read_bytes(), 0, Damage()))
    for case in range(cases):
        root = folder / "case"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root)
        target = "open" if rng.random() < 0.1 else segment.name
        hit = damage(root / name / target, rng)
        stored: list[Span] = []

        async def write(batch: SpanBatch, stored: list[Span] = stored) -> None:
            stored.extend(batch.rows)

        try:
            report = asyncio.run(recover(root, write))
        except Exception as error:
            bad.append(f"case {case} ({hit}): {type(error).__name__}: {error}")
            continue
        damaged += report.damaged_records > 0 or report.torn_bytes > 0
        whole = (
            r for r in records if target == "open" or r.end <= hit.first or r.start >= hit.last
        )
        expected = {s.span_id for r in whole if r.type == "s" for s in r.spans if (s.seq or 0) > 40}
        ids = [span.span_id for span in stored]
        if report.failed or not expected <= set(ids) or len(ids) != len(set(ids)):
            bad.append(f"case {case} ({hit}): {len(expected - set(ids))} lost, {report.failed}")
    detail = f"{damaged} seen as damaged or torn; wrong: {bad[:2] or 'none'}"
    return Row("disk", "damaged journal", f"{cases} cases, seed {seed}", not bad, detail)


def files(cases: int, seed: int, folder: Path) -> Row:
    """Damage a Parquet file: queries and a compaction go on with all the others."""
    rng, bad, left_out = random.Random(seed), [], 0
    template = folder / "files"
    store = Store(ParquetStorage(template))
    owners: dict[str, set[str]] = {}
    for file in range(6):
        batch = make_batch([make_span(file * 4 + n) for n in range(4)], writer_id=f"w{file}")
        store.run(store.storage.write(batch))
        if file == 3:
            compaction_module.Compactor(template, grace_seconds=0).run()
    for found in list_files(template):
        with open_storage(f"parquet:{template}") as storage:
            every = storage.query(columns=["span_id", "writer_id"]).to_pylist()
        owners[found.path] = {
            row["span_id"]
            for row in every
            if row["writer_id"] == found.writer
            or (found.compacted and row["writer_id"] in ("w0", "w1", "w2", "w3"))
        }
    store.close()
    for case in range(cases):
        data = folder / "damaged"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(template, data)
        victim = rng.choice(sorted(owners))
        hit = damage(data / Path(victim).relative_to(template), rng)
        expected = set(itertools.chain(*(ids for path, ids in owners.items() if path != victim)))
        try:
            before = ids_of(data)
            report = compaction_module.Compactor(data, grace_seconds=0).run()
            after = ids_of(data)
        except Exception as error:
            bad.append(f"case {case} ({hit}): {type(error).__name__}: {error}")
            continue
        left_out += bool(report.left_alone)
        if report.failed or not expected <= before or not expected <= after:
            bad.append(f"case {case} ({hit}): {report.failed} {len(expected - before)} lost")
    detail = f"{left_out} files left alone as damaged; wrong: {bad[:2] or 'none'}"
    return Row("disk", "damaged Parquet file", f"{cases} cases, seed {seed}", not bad, detail)


def ids_of(folder: Path) -> set[str]:
    with open_storage(f"parquet:{folder}") as storage:
        return set(storage.query(columns=["span_id"])["span_id"].to_pylist())


def recoverers(rounds: int, folder: Path) -> Row:
    """Let two processes recover the same journals at once, then a third one once more."""
    bad, count = [], 0
    for number in range(rounds):
        data = folder / f"race{number}"
        writers = 5
        for _ in range(writers):
            dead_journal(data / ".journal")
        command = [
            sys.executable,
            "-m",
            "llmops_core.cli",
            "recover",
            "--storage",
            f"parquet:{data}",
        ]
        racing = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        said = [process.communicate()[0].decode() for process in racing]
        third = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        with open_storage(f"parquet:{data}") as storage:
            keys = storage.query(columns=["writer_id", "seq"]).to_pylist()
        pairs = [(key["writer_id"], key["seq"]) for key in keys]
        count += len(pairs)
        # 40 that are not stored yet, and one that was open, of each.
        if len(pairs) != len(set(pairs)) or len(pairs) != writers * 41:
            bad.append(f"{len(pairs)} rows, {len(set(pairs))} spans; {said}")
        if "Stored 0 spans" not in third:
            bad.append(third)
    detail = f"{count} spans, each once; wrong: {bad[:2] or 'none'}"
    return Row("disk", "two recoverers race", f"{rounds} rounds", not bad, detail)


def quiet_day(folder: Path) -> Row:
    """A day at one span a second, a file a minute: compact it and look how many files are left."""
    store = Store(ParquetStorage(folder))
    for minute in range(24 * 60):
        start = 1_767_225_600_000_000 + minute * 60_000_000
        spans = [
            make_span(
                minute * 60 + n,
                trace_id=f"{minute * 20 + n // 3:032x}",
                start_time=start + n * 1_000_000,
                input=f"question {n} " * 20,
            )
            for n in range(60)
        ]
        batch = make_batch(spans, writer_id="w", first_seq=1 + minute * 60)
        store.run(store.storage.write(batch))
    store.close()
    paths = len(list_files(folder))
    began = time.monotonic()
    report = compaction_module.Compactor(folder, grace_seconds=0).run()
    took = time.monotonic() - began
    began = time.monotonic()
    left = len(list_files(folder))
    scan_ms = (time.monotonic() - began) * 1000
    count = len(ids_of(folder))
    fine = paths == 1440 and left <= 200 and scan_ms <= 300 and count == 86_400
    detail = (
        f"{paths} files of {report.bytes_before:,} bytes → {left} of {report.bytes_after:,} "
        f"in {took:.1f} s; {count} spans; scan {scan_ms:.2f} ms"
    )
    return Row("disk", "a quiet day", "1 span/s", fine, detail)


def rows(quick: bool) -> Iterator[Row]:
    """Yield a row for each sort of damage, one for the race, one for the quiet day."""
    compaction_module.LEAST_GRACE_SECONDS = 0.0  # type: ignore[misc]
    logging.getLogger("llmops").setLevel(logging.ERROR)  # each damaged file is named in a warning
    seed = int(time.time())
    try:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            yield journals(120 if quick else 8_000, seed, folder)
            yield files(40 if quick else 2_000, seed, folder)
            yield recoverers(1 if quick else 20, folder)
            if not quick:  # half a minute of writing small files
                yield quiet_day(folder / "quiet")
    finally:
        logging.getLogger("llmops").setLevel(logging.NOTSET)
        compaction_module.LEAST_GRACE_SECONDS = 1.0  # type: ignore[misc]
