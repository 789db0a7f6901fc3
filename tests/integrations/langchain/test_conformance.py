"""LangChain plays the handler suite's scenarios."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_kit import CompletionModel, Notes, ScriptedModel, add, divide

from llmops_core.testing import HandlerConformance
from llmops_core.testing.fixtures import spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler


def _config(monitor, **more):
    callbacks: list[BaseCallbackHandler] = [LLMOpsCallbackHandler(monitor)] if monitor else []
    return {"callbacks": callbacks, **more}


def _model(scenario, **kwargs):
    return ScriptedModel(replies=list(scenario.replies), **kwargs)


def model_call(scenario, monitor):
    return _model(scenario).invoke(scenario.question, _config(monitor)).content


def model_stream(scenario, monitor):
    return [c.content for c in _model(scenario).stream(scenario.question, _config(monitor))]


def model_error(scenario, monitor):
    with pytest.raises(RuntimeError, match="overloaded"):
        _model(scenario).invoke(scenario.question, _config(monitor))


def completion(scenario, monitor):
    return CompletionModel(text=scenario.replies[0].text).invoke(
        scenario.question, _config(monitor)
    )


def tool_call(scenario, monitor):
    return add.invoke({"a": 2, "b": 2}, _config(monitor))


def tool_error(scenario, monitor):
    with pytest.raises(ZeroDivisionError):
        divide.invoke({"a": 1, "b": 0}, _config(monitor))


def retrieval(scenario, monitor):
    return Notes(name="notes").invoke(scenario.question, _config(monitor))


def pipeline(scenario, monitor):
    model = _model(scenario)

    def work(question):
        add.invoke({"a": 2, "b": 2})
        return model.invoke(question).content

    return RunnableLambda(work).invoke(scenario.question, _config(monitor, run_name="pipeline"))


def parallel_tools(scenario, monitor):
    def work(_):
        return add.batch([{"a": 1, "b": 2}, {"a": 3, "b": 4}])

    return RunnableLambda(work).invoke(scenario.question, _config(monitor, run_name="parallel"))


def retry(scenario, monitor):
    model = _model(scenario).with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
    return model.invoke(scenario.question, _config(monitor, run_name="retry")).content


def fallback(scenario, monitor):
    first, second = (ScriptedModel(model=r.model, replies=[r]) for r in scenario.replies)
    return (
        first.with_fallbacks([second])
        .invoke(scenario.question, _config(monitor, run_name="fallback"))
        .content
    )


def cancelled(scenario, monitor):
    model = _model(scenario)
    config = _config(monitor, run_name="slow")

    async def work(question):
        return await model.ainvoke(question)

    async def main():
        call = asyncio.create_task(RunnableLambda(work).ainvoke(scenario.question, config))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


def abandoned(scenario, monitor):
    model = _model(scenario)
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | model
    config = _config(monitor, run_name="stream")

    async def main():
        stream = chain.astream({"question": scenario.question}, config)
        first = await anext(stream)
        await stream.aclose()
        return first.content

    return asyncio.run(main())


def session(scenario, monitor):
    config = _config(monitor, metadata={"session_id": scenario.session})
    return _model(scenario).invoke(scenario.question, config).content


PLAYS = {
    play.__name__: play
    for play in (
        model_call,
        model_stream,
        model_error,
        completion,
        tool_call,
        tool_error,
        retrieval,
        pipeline,
        parallel_tools,
        retry,
        fallback,
        cancelled,
        abandoned,
        session,
    )
}


class TestLangChain(HandlerConformance):
    """Every scenario; none is left out."""

    def play(self, scenario, monitor):
        return PLAYS[scenario.name](scenario, monitor)
