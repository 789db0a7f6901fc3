"""Forked workers under one line: monitoring begins before the fork, and each child records its own.

As ``gunicorn --preload`` does it: the parent imports and instruments, the workers run chains. Nothing
is lost or stored twice.
"""

import os
import sys

from llmops_core import Monitor, open_storage
from llmops_integrations import instrument

try:
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.prompts import ChatPromptTemplate
except ImportError:
    print("This example needs LangChain; install it with: pip install langchain-core")
    sys.exit()

URL = os.environ.get("LLMOPS_STORAGE_URL", "parquet:./llmops_data")
WORKERS, JOBS = 4, 10

monitor = instrument(Monitor(URL, project="instrumented workers"))
chain = ChatPromptTemplate.from_template("Is {n} even?") | FakeListChatModel(responses=["Maybe."])

children = []
for number in range(WORKERS):
    pid = os.fork()
    if pid == 0:
        for job in range(JOBS):
            chain.invoke({"n": job}, {"metadata": {"session_id": f"worker-{number}"}})
        sys.exit(0)  # what is not stored by now lies in the journal
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
monitor.close()

with Monitor(URL):
    pass  # a next start stores what the workers left behind
with open_storage(URL) as storage:
    rows = storage.query(project="instrumented workers").to_pylist()
print(f"exit codes {codes}, {len({row['span_id'] for row in rows})} spans")
for number in range(WORKERS):
    mine = [row for row in rows if row["session_id"] == f"worker-{number}"]
    print(f"worker {number}: {len({r['trace_id'] for r in mine})} traces, {len(mine)} spans")
