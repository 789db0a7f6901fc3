"""A disk that is full, out of inodes or limited; a folder that is deleted, renamed or read-only.

The fault is made while a program records, is seen to have happened, and is taken away again. Then the
program's ledgers must be exact, a fresh span must be stored soon, and no file may be half there.
Mounting needs root, or user namespaces; where there is neither, those rows say so and fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pyarrow.parquet as pq
from rows import Row

from llmops_core import Monitor, open_storage

HERE = Path(__file__).parent
#: Twice what is promised: the machine may be shared. What is measured is printed.
RESUME_SECONDS = 10.0
#: Until something that must happen counts as never happening.
PATIENCE_SECONDS = 30.0


class Program:
    """The monitored program, spoken to line by line."""

    def __init__(
        self, url: str, *, file_bytes: int = 0, mortal: bool = False, **settings: Any
    ) -> None:
        command = [sys.executable, str(HERE / "disk_program.py"), url, str(file_bytes)]
        if mortal and os.geteuid() == 0:  # root may write everywhere
            command = [*("setpriv", "--bounding-set", "-dac_override,-dac_read_search"), *command]
        self._process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ready = self._read()
        if ready != "ready\n":
            raise RuntimeError(f"the program did not start: {self._process.communicate()[1]}")

    def ask(self, what: str) -> Any:
        """Ask for ``stats``, ``warnings``, ``slowest`` or ``unlimited``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._read())

    def end(self) -> tuple[dict[str, Any], int, str]:
        """Let it end; return its last ledgers, its exit code and what it said on stderr."""
        stats = self.ask("end")
        _, errors = self._process.communicate(timeout=60)
        return stats, self._process.returncode, errors

    def kill(self) -> None:
        """End it in the middle, and take what it said last."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass
class Fault:
    """How a fault is made and undone, and how one sees that it happened."""

    name: str
    make: Callable[[Path, Program], None]
    undo: Callable[[Path, Program], None]
    mount: str = ""
    file_bytes: int = 0
    #: Settings of the monitor.
    settings: tuple[tuple[str, Any], ...] = (("backlog_bytes", 512 * 1024),)
    #: Whether the program is bound by permissions, also where root runs it.
    mortal: bool = False
    #: How what must have been counted begins: a failure that is the fault's own.
    counted: str = ""
    #: Whether nothing need fail: what is open already is written on.
    unfelt: bool = False
    #: Whether it belongs to the short subset.
    quick: bool = True


def fill(folder: Path, _: Program) -> None:
    """Take every byte that is left, in a file beside the data."""
    with (folder.parent / "hog").open("wb", buffering=0) as hog:
        for size in (65_536, 4_096, 512):
            try:
                while hog.write(b"x" * size) == size:
                    pass
            except OSError:
                continue


def free(folder: Path, _: Program) -> None:
    for hog in folder.parent.glob("hog*"):
        shutil.rmtree(hog) if hog.is_dir() else hog.unlink()


def fill_inodes(folder: Path, _: Program) -> None:
    hogs = folder.parent / "hogs"
    hogs.mkdir()
    try:
        for number in range(100_000):
            (hogs / str(number)).touch()
    except OSError:
        return


def rename(folder: Path, _: Program) -> None:
    folder.rename(folder.parent / "elsewhere")


def remove(folder: Path, _: Program) -> None:
    shutil.rmtree(folder)


def make_file(folder: Path, _: Program) -> None:
    remove(folder, _)
    folder.write_text("somebody else's")


def remove_file(folder: Path, _: Program) -> None:
    folder.unlink()


def make_read_only(folder: Path, _: Program) -> None:
    # What is open already goes on, as where a disk turns read-only under a journal.
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    with suppress(OSError):
        (folder / "written").touch()
        raise RuntimeError("the folder is not read-only")


def make_writable(folder: Path, _: Program) -> None:
    subprocess.run(["umount", "-l", folder], check=True)


def forbid(folder: Path, _: Program) -> None:
    for path in (folder, *folder.rglob("")):
        path.chmod(0o500)


def allow(folder: Path, _: Program) -> None:
    for path in (folder, *folder.rglob("")):
        path.chmod(0o700)


def of_journal(act: Callable[[Path, Program], None]) -> Callable[[Path, Program], None]:
    """Do it to the folder of the journals."""
    return lambda folder, program: act(folder / ".journal", program)


def nothing(_: Path, __: Program) -> None:
    pass


def unlimit(_: Path, program: Program) -> None:
    program.ask("unlimited")


#: So that new ones are wanted while none can be made.
SMALL_SEGMENTS = (("backlog_bytes", 512 * 1024), ("segment_bytes", 100_000))

FAULTS = (
    Fault("8 MB disk full", fill, free, mount="size=8m", counted="storage.write"),
    Fault(
        "no inode left", fill_inodes, free,
        mount="size=32m,nr_inodes=60", counted="storage.write", quick=False,
    ),
    # Only the journal's files become so large.
    Fault("a limit on file sizes", nothing, unlimit, file_bytes=200_000, counted="journal.append"),
    Fault(
        "folder read-only", make_read_only, make_writable,
        mount="size=64m", counted="storage.write",
    ),
    Fault("folder deleted", remove, nothing, counted="journal.place", quick=False),
    Fault("folder renamed", rename, nothing, counted="journal.place"),
    Fault("folder is a file", make_file, remove_file, counted="journal.place", quick=False),
    Fault("folder not writable", forbid, allow, mortal=True, counted="storage.write", quick=False),
    Fault("journal deleted", of_journal(remove), nothing, counted="journal.place", quick=False),
    Fault("journal renamed", of_journal(rename), nothing, counted="journal.place", quick=False),
    Fault(
        "journal is a file", of_journal(make_file), of_journal(remove_file), counted="journal.place"
    ),
    Fault(
        "journal read-only", of_journal(make_read_only), of_journal(make_writable),
        mount="size=64m", settings=SMALL_SEGMENTS, unfelt=True, quick=False,
    ),
    Fault(
        "journal not writable", of_journal(forbid), of_journal(allow),
        mortal=True, settings=SMALL_SEGMENTS, unfelt=True, quick=False,
    ),
)  # fmt: skip


@contextmanager
def place(mount: str) -> Iterator[Path]:
    """Give a folder, on a file system of its own if *mount* says how."""
    with tempfile.TemporaryDirectory() as made:
        if mount:
            command = ["mount", "-t", "tmpfs", "-o", mount, "tmpfs", made]
            subprocess.run(command, check=True, capture_output=True)
        try:
            yield Path(made)
        finally:
            if mount:
                subprocess.run(["umount", "-l", made], check=False, capture_output=True)


def exact(stats: dict[str, Any]) -> str:
    """Return what is wrong with the ledgers of a program at rest; empty if nothing is."""
    events, spans = stats["events"], stats["spans"]
    if events["received"] != events["consumed"] + events["queued"] + sum(
        events["dropped"].values()
    ):
        return f"events {events}"
    made = sum(spans[n] for n in ("stored", "queued", "journaled", "quarantined"))
    made += sum(spans["dropped"].values()) + sum(spans["skipped"].values())
    return "" if spans["made"] == made else f"spans {spans}"


def seconds_until_stored(program: Program) -> float:
    """Return how long it takes from now until more is stored than was when we asked."""
    before, began = program.ask("stats")["spans"]["stored"], time.monotonic()
    while program.ask("stats")["spans"]["stored"] <= before:
        if time.monotonic() - began > PATIENCE_SECONDS:
            return float("inf")
        time.sleep(0.05)
    return time.monotonic() - began


def until(condition: Callable[[], object]) -> bool:
    """Wait until something is so, for some time at most; say whether it is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (so := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(so)


def count_of(program: Program, beginning: str) -> int:
    """Return how many failures are counted that begin so."""
    failures = program.ask("stats")["failures"]
    return sum(count for key, count in failures.items() if key.startswith(beginning))


def ids_of(folder: Path) -> list[str]:
    with open_storage(f"parquet:{folder}") as storage:
        return [str(i) for i in storage.query(columns=["span_id"])["span_id"].to_pylist()]


def unreadable(folder: Path) -> list[str]:
    """Return the names of the files that a raw reader would stumble over."""
    bad = []
    for path in folder.glob("*/*.parquet"):
        try:
            pq.read_metadata(path)
        except Exception:
            bad.append(path.name)
    return bad


def run(fault: Fault, seconds: float) -> Row:
    """Make the fault, wait, undo it, and look."""
    with place(fault.mount) as folder:
        data = folder / "data"
        program = Program(
            f"parquet:{data}",
            file_bytes=fault.file_bytes,
            mortal=fault.mortal,
            **dict(fault.settings),
        )
        problems = []
        if not fault.file_bytes and seconds_until_stored(program) == float("inf"):
            problems.append("nothing was stored before the fault")
        before = 0 if fault.file_bytes else count_of(program, fault.counted)
        fault.make(data, program)
        time.sleep(seconds)
        if not fault.unfelt and not until(lambda: count_of(program, fault.counted) > before):
            problems.append(f"the fault did not happen: {program.ask('stats')['failures']}")
        happened = count_of(program, fault.counted) - before
        problems += [f"{name} unreadable" for name in unreadable(data)]
        fault.undo(data, program)
        resumed = seconds_until_stored(program)
        slowest = program.ask("slowest") * 1000
        warned = program.ask("warnings")
        stats, code, errors = program.end()
        problems += [f"{name} unreadable" for name in unreadable(data)]
        problems += judge(stats, code, errors, warned, resumed)
        # Whoever renames the folder finds its spans there, and later ones in a new one.
        ids = [i for f in (data, folder / "elsewhere") if f.is_dir() for i in ids_of(f)]
        if len(ids) != len(set(ids)):
            problems.append("doubled spans")
        if fault.make not in (remove, make_file) and len(ids) != stats["spans"]["stored"]:
            problems.append(f"{len(ids)} spans are there, {stats['spans']['stored']} are counted")
    dropped = stats["spans"]["dropped"]
    counted = f"{happened} {fault.counted or 'failures'} counted"
    detail = (
        f"{stats['spans']['made']} spans, {stats['spans']['stored']} stored, dropped {dropped}; "
        f"{counted}, {len(warned)} warnings; stored again after {resumed:.1f} s; "
        f"longest call {slowest:.1f} ms CPU; problems: {problems[:3] or 'none'}"
    )
    return Row("disk", fault.name, "under load", not problems, detail)


def judge(
    stats: dict[str, Any], code: int, errors: str, warned: list[str], resumed: float
) -> list[str]:
    """Return what the program or its ledgers show to be wrong."""
    problems = []
    if code != 7:
        problems.append(f"exit code {code}")
    if "Traceback" in errors:
        problems.append(errors.strip().splitlines()[-1])
    if len(warned) != len(set(warned)):
        problems.append("a warning came twice")
    if resumed > RESUME_SECONDS:
        problems.append(f"not stored again within {RESUME_SECONDS:.0f} s")
    wrong = exact(stats)
    return [*problems, wrong] if wrong else problems


def killed(name: str, act: Callable[[Path, Program], None]) -> Row:
    """Take the journal away, wait until it is there again, kill the program, and start another."""
    with place("") as folder:
        data = folder / "data"
        # Hardly anything is stored meanwhile, so that the journal is all that there is.
        program = Program(f"parquet:{data}", flush_interval_seconds=60.0, batch_size=100_000)
        until(lambda: program.ask("stats")["spans"]["journaled"])
        act(data / ".journal", program)
        remade = until(lambda: program.ask("stats")["journal"]["remade"])
        before = program.ask("stats")["spans"]
        program.kill()
        with Monitor(f"parquet:{data}") as monitor:
            monitor.flush(60)
        ids = ids_of(data)
    promised = before["journaled"] + before["stored"]
    passed = promised <= len(ids) == len(set(ids)) and before["journaled"] > 0 and remade
    detail = f"{promised} spans were promised, {len(ids)} are there, {len(set(ids))} different"
    detail += "" if remade else "; the journal was not made again"
    return Row("disk", name, "then kill -9", passed, detail)


def named(folder: Path, name: str, title: str) -> Row:
    """Write into, read from and compact a folder with an odd name."""
    data = folder / name
    program = Program(f"parquet:{data}")
    resumed = seconds_until_stored(program)
    stats, code, errors = program.end()
    command = [sys.executable, "-m", "llmops_core.cli", "compact"]
    done = subprocess.run(
        [*command, f"parquet:{data}", "--today", "--grace", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    with open_storage(f"parquet:{data}") as storage:
        count = len(storage.query(columns=["span_id"]))
    problems = judge(stats, code, errors, [], resumed)
    if count != stats["spans"]["stored"] or not count:
        problems.append(f"{count} spans are there, {stats['spans']['stored']} are counted")
    if done.returncode or json.loads(done.stdout)["files_before"] < 2:
        problems.append(f"compact: {done.stdout}{done.stderr}")
    return Row("disk", "odd names", title, not problems, f"{count} spans; {problems or 'fine'}")


def rows(quick: bool) -> Iterator[Row]:
    """Yield a row for each fault and each odd name."""
    for fault in FAULTS:
        if quick and not fault.quick:
            continue
        try:
            yield run(fault, 1.0 if quick else 10.0)
        except (RuntimeError, subprocess.CalledProcessError, OSError) as error:
            yield Row("disk", fault.name, "under load", False, f"{type(error).__name__}: {error}")
    yield killed("journal deleted", remove)
    if not quick:
        yield killed("journal renamed", rename)
    with tempfile.TemporaryDirectory() as folder:
        yield named(Path(folder), "ünï⚡ b  c'\"=%s", "spaces, quotes, unicode")
        if not quick:
            yield named(Path(folder), "x" * os.pathconf(folder, "PC_NAME_MAX"), "255 bytes")
