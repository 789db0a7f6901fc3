"""A web service with many sessions at once: one monitored graph, and each session's own spans."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from llmops_core import Monitor

try:
    import httpx
    from fastapi import FastAPI, Request
    from langgraph.graph import START, StateGraph
except ImportError as missing:
    print(f"{missing}; install it with: pip install fastapi httpx langgraph")
    sys.exit(0)

from langchain_core.language_models import FakeListChatModel

from llmops_integrations.langgraph import monitor_graph

SESSIONS, QUESTIONS = 20, 3


class State(TypedDict, total=False):
    """One question and its answer."""

    question: str
    answer: str


def build_graph() -> StateGraph:
    """Return a graph of one agent."""
    model = FakeListChatModel(responses=["Yes."])

    async def answer(state: State) -> State:
        return {"answer": str((await model.ainvoke(state["question"])).content)}

    builder = StateGraph(State)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the monitor with the service, and close it with it: both may wait, so on a thread."""
    monitor = await asyncio.to_thread(Monitor, "parquet:./llmops_data", service="web")
    app.state.monitor = monitor
    app.state.graph = monitor_graph(build_graph().compile(name="web"), monitor=monitor)
    try:
        yield
    finally:
        await asyncio.to_thread(monitor.close)


app = FastAPI(lifespan=lifespan)


@app.post("/sessions/{session_id}/ask")
async def ask(session_id: str, question: str, request: Request) -> dict[str, str]:
    """Answer a question. The session goes in as metadata; the graph is shared by all requests."""
    result = await request.app.state.graph.ainvoke(
        {"question": question}, {"metadata": {"session_id": session_id}}
    )
    return {"answer": result["answer"]}


async def main() -> None:
    """Run all sessions against the service at once, then count what each has stored."""
    run = uuid.uuid4().hex[:6]
    names = [f"{run}-{number}" for number in range(SESSIONS)]
    async with lifespan(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
            await asyncio.gather(
                *(
                    client.post(f"/sessions/{name}/ask", params={"question": f"Is it {q}?"})
                    for name in names
                    for q in range(QUESTIONS)
                )
            )
        monitor = app.state.monitor
        await asyncio.to_thread(monitor.flush)
        for name in names:
            kinds = await asyncio.to_thread(
                monitor.query, session_id=name, group_by=["kind"], aggregates=["count"]
            )
            counts = sorted((row["kind"], row["count"]) for row in kinds.to_pylist())
            print(name.partition("-")[2], *(f"{count} {kind}" for kind, count in counts))


if __name__ == "__main__":
    asyncio.run(main())
