"""A web service for several tenants: one line monitors it, each request says whose it is.

Tenant, session and user are of a request, never of the process. A request with a ``traceparent``
header joins its caller's trace.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from llmops_core import initialize_monitoring, monitor_llm, monitoring_session, monitoring_trace
from llmops_integrations import instrument

try:
    import httpx
    from fastapi import FastAPI, Header, Request
    from langgraph.graph import START, StateGraph
except ImportError as missing:
    print(f"{missing}; install it with: pip install fastapi httpx langgraph")
    sys.exit(0)

from langchain_core.language_models import FakeListChatModel

TENANTS, QUESTIONS = ("acme", "globex", "initech"), 5
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class State(TypedDict, total=False):
    """One question and its answer."""

    question: str
    answer: str


model = FakeListChatModel(responses=["Yes."])


async def answer(state: State) -> State:
    """The graph's only node."""
    return {"answer": str((await model.ainvoke(state["question"])).content)}


graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile(name="web")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the monitor with the service, attach it to everything, close it at the end."""
    app.state.monitor = await initialize_monitoring(
        storage="parquet:./llmops_data", service="tenants"
    )
    instrument()
    try:
        yield
    finally:
        await app.state.monitor.aclose()


app = FastAPI(lifespan=lifespan)


@monitor_llm("serve")
async def serve(question: str, tenant: str) -> str:
    """Answer for a tenant: what is in ``metadata`` is an attribute of the graph's spans."""
    result = await graph.ainvoke({"question": question}, {"metadata": {"tenant": tenant}})
    return str(result["answer"])


@app.post("/ask")
async def ask(
    request: Request,
    question: str,
    x_tenant: str = Header(),
    x_session: str = Header(),
    traceparent: str | None = Header(default=None),
) -> dict[str, str]:
    """Answer a question. A header that is missing or broken begins a trace of its own."""
    with monitoring_session(x_session, user_id=x_tenant), monitoring_trace(traceparent=traceparent):
        return {"answer": await serve(question, x_tenant)}


async def main() -> None:
    """Let all tenants ask at once, then count what is stored of each."""
    began = time.time_ns() // 1_000
    async with lifespan(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:

            async def request(tenant: str, number: int) -> None:
                headers = {"x-tenant": tenant, "x-session": f"{tenant}-{number}"}
                if number == 0:
                    headers["traceparent"] = CALLER
                await client.post("/ask", params={"question": "Is it?"}, headers=headers)

            await asyncio.gather(*(request(t, n) for t in TENANTS for n in range(QUESTIONS)))
        monitor = app.state.monitor
        await monitor.aflush()
        rows = (await monitor.aquery(service="tenants", since=began)).to_pylist()
    for tenant in TENANTS:
        mine = [row for row in rows if row["user_id"] == tenant]
        assert all(row["session_id"].startswith(tenant) for row in mine)
        kinds = Counter(row["kind"] for row in mine)
        print(tenant, *(f"{kinds[kind]} {kind}" for kind in sorted(kinds)))
    joined = [row for row in rows if row["trace_id"] == CALLER[3:35]]
    below = [row for row in joined if row["parent_id"] == CALLER[36:52]]
    print(f"joined the caller's trace: {len(joined)} spans, {len(below)} right below its span")


if __name__ == "__main__":
    asyncio.run(main())
