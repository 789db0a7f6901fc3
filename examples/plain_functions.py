"""Monitor plain functions, streams and a session, without any framework."""

import asyncio
from collections.abc import AsyncIterator

from llmops_core import (
    initialize_monitoring,
    monitor_llm,
    monitoring_session,
    open_storage,
    shutdown,
    span_tree,
    spans_from_arrow,
)


@monitor_llm(
    "model", operation_type="llm_call", measurement="auto", custom_attributes={"model": "gpt-4o"}
)
async def complete(prompt: str) -> AsyncIterator[str]:
    """Stream an answer, as a model would."""
    for word in f"You asked: {prompt}".split(" "):
        await asyncio.sleep(0.001)
        yield word + " "


@monitor_llm("search", operation_type="tool")
async def search(query: str) -> list[str]:
    await asyncio.sleep(0.001)
    return [f"a page about {query}"]


@monitor_llm("desk", operation_type="agent_workflow", measure_text=True)
async def answer(question: str) -> dict[str, str]:
    pages = await asyncio.gather(search(question), search("prices"))
    words = [word async for word in complete(f"{question} {len(pages)}")]
    return {"text": "".join(words)}


async def main() -> None:
    await initialize_monitoring(storage="parquet:./llmops_data")
    with monitoring_session("user-123"):
        print((await answer("where is my order?"))["text"])


if __name__ == "__main__":
    asyncio.run(main())
    shutdown()
    with open_storage("parquet:./llmops_data") as storage:
        print(span_tree(spans_from_arrow(storage.query(session_id="user-123"))), end="")
