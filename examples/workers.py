"""A prefork server in small: the monitor is made once, each forked worker writes for itself.

Run it: ``python examples/workers.py``. Nothing is lost or stored twice, although the workers share
nothing but the folder and end right after their work.
"""

import os
import sys

from llmops_core import Monitor, monitor_llm, open_storage

URL = os.environ.get("LLMOPS_STORAGE_URL", "parquet:./llmops_data")
WORKERS, JOBS = 4, 25

monitor = Monitor(URL, project="workers")


@monitor_llm(monitor=monitor)
def answer(question: str) -> str:
    return question.upper()


def work(number: int) -> None:
    for job in range(JOBS):
        answer(f"worker {number}, job {job}")


children = []
for number in range(WORKERS):
    pid = os.fork()
    if pid == 0:
        work(number)
        sys.exit(0)  # what is not stored by now lies in the journal
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
monitor.close()

with Monitor(URL):
    pass  # a next start stores what the workers left behind
with open_storage(URL) as storage:
    rows = storage.query(project="workers", columns=["span_id", "writer_id"]).to_pylist()
print(f"exit codes {codes}, {len(rows)} spans of {len({r['writer_id'] for r in rows})} processes")
