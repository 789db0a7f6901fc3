"""Programs whose worker processes come and go, as people run them; ``app.py URL METHOD TASKS``.

Each prints how many processes recorded something.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CELERY", "DOUBLE", "EXECUTOR", "PREFORK"]

_TASK: Final = """
import multiprocessing, os, sys
from forks_worker import record
from llmops_core import Monitor
URL, METHOD, TASKS = sys.argv[1], sys.argv[2], int(sys.argv[3])
monitor = None
def task(number):
    global monitor
    if monitor is None:
        monitor = Monitor(URL)
    return record(monitor, number)
"""
PREFORK: Final = f"""{_TASK}
if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    if METHOD == "fork":
        monitor = Monitor(URL)
    pool = context.Pool(4, maxtasksperchild=25)
    pids = set(pool.map(task, range(1, TASKS + 1), chunksize=1))
    pool.close()
    pool.join()
    print(len(pids))
"""
EXECUTOR: Final = f"""{_TASK}
if __name__ == "__main__":
    import concurrent.futures
    if METHOD == "fork":
        monitor = Monitor(URL)
    context = multiprocessing.get_context(METHOD)
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        print(len(set(pool.map(task, range(1, TASKS + 1)))))
"""
DOUBLE: Final = """
import os, sys
from forks_worker import record
from llmops_core import Monitor
monitor, TASKS = Monitor(sys.argv[1]), int(sys.argv[3])
for number in range(1, TASKS + 1):
    if os.fork() == 0:
        if os.fork() == 0:
            record(monitor, number)
            sys.exit(0)
        os.wait()
        sys.exit(0)
    if number % 4 == 0:
        for _ in range(4): os.wait()
print(TASKS)
"""
#: As Celery's prefork pool does: workers are forked from a parent that has imported the application,
#: take tasks from a pipe, are replaced after 25 of them, and leave by ``os._exit`` once they have called
#: what is registered for ``worker_process_shutdown``.
CELERY: Final = """
import os, sys
from forks_worker import record
from llmops_core import Monitor
URL, TASKS, PER_CHILD = sys.argv[1], int(sys.argv[3]), 25
monitor = Monitor(URL)
def worker(first):
    code = 1
    try:
        for number in range(first, min(first + PER_CHILD, TASKS + 1)):
            record(monitor, number)
        monitor.close(60)  # worker_process_shutdown
        code = 0
    finally:
        os._exit(code)
codes, running = [], 0
for first in range(1, TASKS + 1, PER_CHILD):
    if running == 4:
        codes.append(os.wait()[1])
        running -= 1
    if os.fork() == 0:
        worker(first)
    running += 1
codes += [os.wait()[1] for _ in range(running)]
print(len(codes))
sys.exit(any(codes))
"""
