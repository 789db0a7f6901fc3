"""Forks: with each lock of ours held by another thread, and workers as people run them.

``python tests/crashlab/run.py --only forks``; the oracle is this process, which hears through a file
which spans each child has recorded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from exits import recovered_ids
from forks_database import a_server, with_postgresql
from forks_oracle import HERE, environment, judged
from forks_programs import CELERY, DOUBLE, EXECUTOR, PREFORK
from forks_servers import servers
from rows import Row

from llmops_core.intake.drafts import span_id_of

#: Four hundred processes that each open and flush a monitor take ten minutes of a busy machine.
END_SECONDS: Final = 1800
#: What forks_app.py records in the parent, and in each child.
PARENT_SPANS: Final = 5
CHILD_SPANS: Final = 3


# ---- a lock is held ----


def with_locks(forks: int) -> Row:
    """Fork while each lock that a live monitor reaches is held, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"parquet:{folder}/data"
        command = [sys.executable, str(HERE / "forks_app.py"), url, str(forks)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
        if done.returncode:
            return Row("forks", "a lock is held", "all", False, done.stderr[-2000:])
        result = json.loads(done.stdout.splitlines()[-1])
        ids = recovered_ids(url)
    runs = [*range(1, PARENT_SPANS + 1)]
    runs += [(fork << 32) + at for fork in range(1, forks + 1) for at in range(CHILD_SPANS)]
    recorded = {span_id_of(run) for run in runs}
    doubled = len(ids) - len(set(ids))
    detail = (
        f"{len(result['locks'])} locks, {forks} forks, {len(result['stuck'])} deadlocks, "
        f"{len(recorded & set(ids))} of {len(recorded)} spans, {doubled} doubled; each lock met a child "
        f"that does everything {result['full']} times or more"
    )
    problems = {name: result[name] for name in ("stuck", "never_held") if result[name]}
    passed = not problems and not doubled and recorded == set(ids) and result["full"] >= 1
    version = "{}.{}".format(*sys.version_info)
    text = f"{detail}; {problems}" if problems else detail
    return Row("forks", "a lock is held", version, passed, text[:2000])


# ---- workers that come and go ----


def with_processes(script: str, scenario: str, method: str, tasks: int, **expected: bool) -> Row:
    """Run tasks in worker processes that come and go; ten spans each."""
    with tempfile.TemporaryDirectory() as folder:
        url, oracle = f"parquet:{folder}/data", Path(folder) / "oracle"
        path = Path(folder) / "app.py"
        path.write_text(script)
        command = [sys.executable, str(path), url, method, str(tasks)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=END_SECONDS, check=False,
                env=environment(oracle),
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return Row("forks", scenario, method, False, str(late))
        if done.returncode or "Traceback" in done.stderr:
            return Row("forks", scenario, method, False, done.stderr[-2000:])
        processes = int(done.stdout)
        return judged(scenario, method, url, oracle, tasks=tasks, processes=processes, **expected)


def lab(quick: bool) -> Iterator[Row]:
    """Yield a row for the locks, and one for each sort of worker: 4,000 spans by four workers."""
    yield with_locks(40 if quick else 1000)
    tasks = 100 if quick else 400
    for method in ("fork",) if quick else ("fork", "spawn", "forkserver"):
        yield with_processes(PREFORK, "Pool, 25 tasks a child", method, tasks)
        if not quick:
            yield with_processes(EXECUTOR, "ProcessPoolExecutor", method, tasks)
    celery = "os._exit after close(), as Celery's workers"
    yield with_processes(CELERY, celery, "fork", tasks, at_exit=True)
    yield with_processes(DOUBLE, "double fork", "fork", 20 if quick else 400)
    yield with_postgresql(a_server())
    yield from servers(100 if quick else 400, quick=quick)
