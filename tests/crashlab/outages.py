"""A database that is killed, cut off, or loses its answers while a program records 500 spans a second.

``python tests/crashlab/outages.py`` takes each of the private databases away for a minute, and with
``--seconds 600`` for ten. This process is the oracle: it hears what the program recorded and what it
journaled, and asks the database past the storage, by span id, what is there in the end.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from crash_payload import payload
from outage_proxy import COMMITS, Proxy
from outage_servers import SERVERS, Server, missing, running, until
from outage_watch import MEGABYTE, PER_SECOND, Program, drain
from rows import Row, table

from llmops_core.intake.tracer import span_id_of

#: What our process may need more than before; and how much faster than they come spans are stored.
MOST_MEGABYTES: Final = 64
LEAST_DRAIN: Final = 5
#: The longest that a call of the host may take; more than that is not the machine's own stalls.
LONGEST_CALL_SECONDS: Final = 1.0
#: How soon a connection that carries nothing is given up, a batch's own two seconds included.
NOTICED_SECONDS: Final = 13.0
RUNS = 1_000_000


@dataclass
class Run:
    """One scenario at one database."""

    server: Server
    commit: bytes
    #: How long the fault lasts.
    seconds: float
    #: A deadline of the storages, shortened; 0 for their own.
    deadline: float
    state: Path
    #: The number of the first run, and what an earlier scenario has stored in the same table.
    first_run: int
    there: set[str]
    programs: list[Program] = field(default_factory=list)
    #: What must be stored by id: all that was recorded, or what was journaled by one that was killed.
    owed: dict[str, int] = field(default_factory=dict)
    issued: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def start(self, url: str) -> Program:
        """Start a program, which goes on recording."""
        program = Program(url, self.state, self.first_run, self.deadline)
        self.first_run += RUNS
        self.programs.append(program)
        return program

    def warm(self, program: Program) -> int:
        """Let it store for a while; return how many spans it has."""
        until(lambda: program.ask()["spans"]["stored"] >= PER_SECOND)
        time.sleep(min(5.0, self.seconds / 4))
        program.settle_memory()
        time.sleep(min(5.0, self.seconds / 4))
        stored: int = program.ask()["spans"]["stored"]
        return stored

    def note(self, program: Program, *, killed: bool = False) -> None:
        """Take note of what a program that has ended recorded."""
        found = {span_id_of(run): run for run in program.issued}
        self.issued |= found
        owed = found.keys() & program.journaled if killed else found.keys()
        self.owed |= {span_id: found[span_id] for span_id in owed}

    def check(self, what: str, passed: bool) -> None:
        """Say a figure, and that it is not as it should be."""
        self.told.append(what)
        if not passed:
            self.problems.append(what)

    def fault(self, happened: bool, what: str) -> None:
        """Hold that the fault really happened."""
        if not happened:
            self.problems.append(f"the fault did not happen: {what}")

    def watch_host(self, program: Program) -> None:
        """Hold that the host went on: by the slowest of its calls until now."""
        told = program.ask("calls")
        text = f"a call {told['p99_us']:.0f} µs at p99, {told['slowest_us'] / 1000:.1f} ms at most"
        self.check(text, 0 < told["slowest_us"] < LONGEST_CALL_SECONDS * 1e6)

    def watch_memory(self, program: Program, base: int) -> None:
        """Hold that the backlog is in the journal, and not in memory. Called at the fault's end."""
        journal = program.journal_peak
        more = (program.settle_memory() - base) / MEGABYTE
        self.check(f"memory {more:+.0f} MB", more <= MOST_MEGABYTES)
        self.told.append(f"journal {journal / MEGABYTE:.0f} MB")

    def watch_log(self, program: Program, outages: int) -> None:
        """Hold that each outage is a line when it begins, and one when it is over."""
        lines = (program.logged("takes no spans"), program.logged("takes spans again"))
        # That a write has hung for ten seconds is told once, whatever comes of it.
        known = ("takes no spans", "takes spans again", "superuser", "failed in slow")
        others = [line for line in program.log if not any(text in line for text in known)]
        text = f"{sum(lines)} lines of log" + (f" and {others}" if others else "")
        right = lines == (outages, outages)
        if self.deadline:  # one that is shortened passes on a busy machine, too: another outage
            right = outages <= lines[0] == lines[1]
        self.check(text, right and not others)

    def drained(self, program: Program, before: int, base: int) -> None:
        """Hold that what waited is stored soon, and faster than spans come."""
        resumed, rate, backlog = drain(program, before)
        text = f"first after {resumed:.1f} s, {backlog} waiting"
        self.check(text, resumed <= NOTICED_SECONDS + 5)
        if backlog > 3 * PER_SECOND:
            # Few are stored in one go, at no rate.
            enough = rate >= LEAST_DRAIN * PER_SECOND or backlog < 20 * PER_SECOND
            self.check(f"drained at {rate:.0f}/s", enough)
        # Told and not judged: what was freed does not go back to the system at once.
        self.told.append(f"memory {(program.rss_peak - base) / MEGABYTE:+.0f} MB meanwhile")

    def compare(self) -> None:
        """Ask the database what is there, and hold it against what is owed."""
        rows = [row for row in self.server.rows() if row[0] not in self.there]
        counts = Counter(span_id for span_id, _ in rows)
        lost = len(self.owed.keys() - counts.keys())
        doubled = len(rows) - len(counts)
        strange = len(counts.keys() - self.issued.keys())
        wrong = sum(text != payload(self.issued[i]) for i, text in rows if i in self.issued)
        text = f"{len(self.owed)} owed, {len(rows)} stored, {lost} lost, {doubled} doubled"
        if strange or wrong:
            text += f", {strange} unknown, {wrong} wrong"
        self.told.insert(0, text)
        if lost or doubled or strange or wrong or not self.owed:
            self.problems.append(text)


def stopped(run: Run) -> None:
    """The server is killed, is away for a while, and is started again."""
    program = run.start(run.server.url(run.server.port))
    before = run.warm(program)
    base = program.settle_memory()
    run.server.kill()
    before = max(before, program.ask()["spans"]["stored"])
    time.sleep(run.seconds)
    during = program.ask()
    retries = during["storage"]["retries"]
    run.fault(during["storage"]["state"] == "failing", "the storage does not fail")
    run.check(f"{retries} tries", 0 < retries <= max(8, run.seconds))
    run.watch_host(program)
    run.watch_memory(program, base)
    run.server.start()
    run.drained(program, during["spans"]["stored"], base)
    finish(run, program, outages=1)


def restarted(run: Run) -> None:
    """While the server is away our process ends, one is killed, and another one starts."""
    url = run.server.url(run.server.port)
    first = run.start(url)
    run.warm(first)
    run.server.kill()
    time.sleep(run.seconds / 3)
    run.fault(first.ask()["spans"]["journaled"] > 0, "nothing waits")
    began = time.monotonic()
    run.fault(first.end() == 0, "it did not exit well")
    took = time.monotonic() - began
    run.note(first)
    second = run.start(url)
    time.sleep(run.seconds / 3)
    second.kill()
    run.note(second, killed=True)
    third = run.start(url)
    time.sleep(run.seconds / 3)
    waiting = third.ask()["spans"]["journaled"]
    run.fault(waiting > 0, "nothing waits")
    run.server.start()
    left = until(lambda: len(journals(run.state)) == 1, seconds=180)
    run.told.append(f"exit in {took:.1f} s; what two had left was stored {left:.1f} s after")
    finish(run, third, outages=1)


def journals(state: Path) -> list[Path]:
    """Return the journals that are there: those of dead writers go once they are stored."""
    return [path.parent for path in state.rglob("lock")]


def answer_lost(run: Run) -> None:
    """The server commits, and its answer does not arrive; the last time because it is killed."""
    proxy = Proxy(run.server.port, run.commit)
    try:
        program = run.start(run.server.url(proxy.port))
        run.warm(program)
        for number in range(1, 1 + max(3, round(run.seconds / 2))):
            proxy.lose(1)
            until(lambda number=number: proxy.lost == number)  # type: ignore[misc]
            stored = program.ask()["spans"]["stored"]
            until(lambda stored=stored: program.ask()["spans"]["stored"] > stored)  # type: ignore[misc]
        lost = proxy.lost
        proxy.lose(1, run.server.kill)
        until(lambda: program.ask()["storage"]["state"] == "failing" and proxy.lost > lost)
        run.server.start()
        run.told.append(f"{lost} answers lost, and one with its server")
        run.watch_host(program)
        # ClickHouse's driver asks once more by itself, where a connection was closed.
        finish(run, program, outages=program.logged("takes no spans"))
    finally:
        proxy.close()


def half_open(run: Run) -> None:
    """The network takes what is sent and delivers nothing; no connection is closed."""
    proxy = Proxy(run.server.port, run.commit)
    try:
        program = run.start(run.server.url(proxy.port))
        run.warm(program)
        base = program.settle_memory()
        before = program.ask()["storage"]["retries"]
        proxy.cut()
        began = time.monotonic()
        noticed = until(lambda: program.ask()["storage"]["retries"] > before, every=0.2)
        run.check(f"noticed after {noticed:.1f} s", noticed <= NOTICED_SECONDS)
        time.sleep(max(0.0, run.seconds - (time.monotonic() - began)))
        during = program.ask()
        run.fault(proxy.cut_off > 0, "no connection was cut")
        run.watch_host(program)
        run.watch_memory(program, base)
        proxy.heal()
        run.drained(program, during["spans"]["stored"], base)
        finish(run, program, outages=1)
    finally:
        proxy.close()


def finish(run: Run, program: Program, *, outages: int) -> None:
    """Let the program store everything and leave."""
    last = program.ask("quiet")
    run.fault(last["events"]["received"] >= 2 * len(program.issued), "the program did not record")
    if not program.flush():
        run.problems.append("a flush of two minutes was not enough")
    run.watch_log(program, outages)
    if program.end() != 0:
        run.problems.append("it did not exit well")
    run.note(program)
    run.compare()


SCENARIOS: Final[dict[str, Callable[[Run], None]]] = {
    "stopped": stopped,
    "restart in an outage": restarted,
    "answer lost": answer_lost,
    "half-open": half_open,
}


def cells(
    database: str, scenarios: Iterable[str], seconds: float, deadline: float = 0.0
) -> Iterator[Row]:
    """Run scenarios at one database, one after the other, and tell what came of each."""
    where = f"{database} {seconds:g} s"
    why = missing(database)
    if why is not None:
        yield Row("outages", "all", where, False, why)
        return
    with running(database) as server:
        there: set[str] = set()
        for number, scenario in enumerate(scenarios):
            with tempfile.TemporaryDirectory() as state:
                first = RUNS * (1 + 10 * number)
                run = Run(server, COMMITS[database], seconds, deadline, Path(state), first, there)
                yield Row("outages", scenario, where, *_outcome(run, SCENARIOS[scenario]))
            there |= run.issued.keys()


def _outcome(run: Run, scenario: Callable[[Run], None]) -> tuple[bool, str]:
    """Run a scenario, whatever it raises; leave no process behind."""
    try:
        scenario(run)
    except Exception as error:
        run.problems.append(f"{type(error).__name__}: {error}")
    finally:
        for program in run.programs:
            program.kill()
    detail = "; ".join(run.told)
    if run.problems:
        log = [line for program in run.programs for line in program.log]
        detail += f" | WRONG: {'; '.join(run.problems)} | log: {log[-4:]}"
    return not run.problems, detail


#: The short subset: how long a fault lasts, and the storages' deadlines.
QUICK: Final = (2.0, 1.0)


def lab(quick: bool) -> Iterator[Row]:
    """Yield a row for each scenario at each database."""
    for database in SERVERS:
        yield from cells(database, SCENARIOS, *(QUICK if quick else (60.0,)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit 1 if a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a fault lasts")
    parser.add_argument("--deadline", type=float, default=0.0, help="shortens the storages' own")
    parser.add_argument("--database", choices=list(SERVERS), action="append")
    parser.add_argument("--scenario", choices=list(SCENARIOS), action="append")
    options = parser.parse_args(arguments)
    # Who is told to end leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = False
    for database in options.database or SERVERS:
        chosen = options.scenario or SCENARIOS
        for row in cells(database, chosen, options.seconds, options.deadline):
            print(table([row]), flush=True)
            failed = failed or not row.passed
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
