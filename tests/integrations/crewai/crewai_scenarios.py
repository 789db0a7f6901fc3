"""Real crews with scripted models, each with the span tree that it must yield."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

from crewai.flow.flow import Flow, listen, router, start
from crewai_kit import Broken, Process, ScriptedLLM, Search, act, agent, call, crew, final, task

SCENARIOS: Final[dict[str, Callable[[], Any]]] = {}
EXPECTED: Final[dict[str, str]] = {}


def scenario(tree: str) -> Callable[[Callable[[], Any]], Any]:
    def register(play: Callable[[], Any]) -> Callable[[], Any]:
        SCENARIOS[play.__name__] = play
        EXPECTED[play.__name__] = tree
        return play

    return register


def embed(texts: list[str]) -> list[list[float]]:
    """An embedding without a model."""
    return [[float(len(t) % 7), 1.0, 0.5] for t in texts]


@scenario(
    """\
workflow press ok
  task research [researcher] ok
    agent researcher ok
      llm scripted-1 [researcher] ok 12+3 tokens
      tool search [researcher] ok
      llm scripted-1 [researcher] ok 12+3 tokens
  handoff researcher → editor [researcher] -> editor by context handed_off
  handoff researcher → writer [researcher] -> writer by context handed_off
  task write [writer] ok
    agent writer ok
      llm scripted-1 [writer] ok 12+3 tokens streamed
  handoff writer → editor [writer] -> editor by context handed_off
  task edit [editor] ok
    agent editor ok
      llm scripted-1 [editor] ok 12+3 tokens
"""
)
def sequential() -> Any:
    researcher = agent(
        "researcher", act("search", query="cats"), final("cats are nice"), tools=[Search()]
    )
    work = crew(
        task("research", researcher),
        task("write", agent("writer", pieces=True)),
        task("edit", agent("editor")),
        name="press",
    )
    return work.kickoff(inputs={"topic": "cats"})


@scenario(
    """\
workflow team ok
  task research [Crew Manager] ok
    agent Crew Manager ok
      llm scripted-1 [Crew Manager] ok 12+3 tokens
      tool delegate_work_to_coworker [Crew Manager] ok
        agent researcher ok
          llm scripted-1 [researcher] ok 12+3 tokens
      llm scripted-1 [Crew Manager] ok 12+3 tokens
      tool ask_question_to_coworker [Crew Manager] ok
        agent writer ok
          llm scripted-1 [writer] ok 12+3 tokens
      llm scripted-1 [Crew Manager] ok 12+3 tokens
  handoff Crew Manager → researcher [Crew Manager] -> researcher by manager handed_off
  handoff Crew Manager → writer [Crew Manager] -> writer by question handed_off
"""
)
def hierarchical() -> Any:
    boss = ScriptedLLM(
        replies=[
            act(
                "Delegate work to coworker",
                task="find cats",
                context="the user likes cats",
                coworker="researcher",
            ),
            act("Ask question to coworker", question="nice?", context="cats", coworker="writer"),
            final("all done"),
        ]
    )
    return crew(
        task("research"),
        agents=[agent("researcher"), agent("writer")],
        process=Process.hierarchical,
        manager_llm=boss,
        name="team",
    ).kickoff()


@scenario(
    """\
workflow crew ok
  task t [boss] ok
    agent boss ok
      llm scripted-1 [boss] ok 12+3 tokens
      tool delegate_work_to_coworker [boss] ok
        agent worker ok
          llm scripted-1 [worker] ok 12+3 tokens
      llm scripted-1 [boss] ok 12+3 tokens
  handoff boss → worker [boss] -> worker by delegation handed_off
"""
)
def delegation_by_native_tool() -> Any:
    boss = agent(
        "boss",
        call("delegate_work_to_coworker", task="find cats", context="ctx", coworker="worker"),
        "ok",
        native=True,
        allow_delegation=True,
    )
    return crew(task("t", boss), agents=[boss, agent("worker")]).kickoff()


@scenario(
    """\
workflow crew ok
  task t [boss] ok
    agent boss ok
      llm scripted-1 [boss] ok 12+3 tokens
      tool delegate_work_to_coworker [boss] ok
      llm scripted-1 [boss] ok 12+3 tokens
  handoff boss → nobody [boss] -> nobody by delegation incomplete
"""
)
def delegation_to_nobody() -> Any:
    boss = agent(
        "boss",
        act("Delegate work to coworker", task="find cats", context="ctx", coworker="nobody"),
        final("alone"),
        allow_delegation=True,
    )
    return crew(task("t", boss), agents=[boss, agent("worker")]).kickoff()


@scenario(
    """\
workflow crew ok
  task one [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
  task two [b] ok
    agent b ok
      llm scripted-1 [b] ok 12+3 tokens
  handoff a → c [a] -> c by context handed_off
  handoff b → c [b] -> c by context handed_off
  task three [c] ok
    agent c ok
      llm scripted-1 [c] ok 12+3 tokens
"""
)
def async_tasks() -> Any:
    # The second takes longer, so that which handoff begins first does not depend on the machine.
    one = task("one", agent("a", seconds=0.1), async_execution=True)
    two = task("two", agent("b", seconds=0.25), async_execution=True)
    return crew(one, two, task("three", agent("c"), context=[one, two])).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
      tool broken [a] error TimeoutError
      tool broken [a] error TimeoutError attempt=2
      tool broken [a] error TimeoutError attempt=3
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def tool_error_react() -> Any:
    worker = agent("a", act("broken", query="x"), final("gave up"), tools=[Broken()])
    return crew(task("t", worker)).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
      tool broken [a] error TimeoutError
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def tool_error_native() -> Any:
    worker = agent("a", call("broken", query="x"), "gave up", native=True, tools=[Broken()])
    return crew(task("t", worker)).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
      tool nope [a] error UnknownTool
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def unknown_tool() -> Any:
    worker = agent("a", act("nope", query="x"), final("gave up"), tools=[Search()])
    return crew(task("t", worker)).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
    guardrail short [a] error GuardrailRejected
    agent a ok attempt=2
      llm scripted-1 [a] ok 12+3 tokens
    guardrail short [a] ok attempt=2
"""
)
def guardrail_retry() -> Any:
    def short(output):  # type: ignore[no-untyped-def]  # CrewAI evaluates annotations
        return (output.raw == "two", output.raw if output.raw == "two" else "too long")

    worker = agent("a", final("one"), final("two"))
    return crew(task("t", worker, guardrail=short, guardrail_max_retries=2)).kickoff()


@scenario(
    """\
workflow crew error Exception
  task t [a] error Exception
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
    guardrail never [a] error GuardrailRejected
    agent a ok attempt=2
      llm scripted-1 [a] ok 12+3 tokens
    guardrail never [a] error GuardrailRejected attempt=2
"""
)
def guardrail_failure() -> Any:
    def never(output):  # type: ignore[no-untyped-def]
        return (False, "never")

    worker = agent("a", final("one"), final("two"))
    work = crew(task("t", worker, guardrail=never, guardrail_max_retries=1))
    return _error_of(work.kickoff)


@scenario(
    """\
workflow Desk ok
  task begin ok
  task route ok
  task large ok
    chain inner ok
      task t [a] ok
        agent a ok
          llm scripted-1 [a] ok 12+3 tokens
"""
)
def flow_with_router() -> Any:
    class Desk(Flow):  # type: ignore[type-arg]
        @start()
        def begin(self) -> str:
            return "a question"

        @router(begin)
        def route(self) -> str:
            return "big"

        @listen("big")
        def large(self) -> str:
            return str(crew(task("t", agent("a")), name="inner").kickoff().raw)

        @listen("tiny")
        def small(self) -> str:
            return "small"

    return Desk().kickoff()


@scenario(
    """\
workflow Desk error ValueError
  task begin error ValueError
"""
)
def flow_error() -> Any:
    class Desk(Flow):  # type: ignore[type-arg]
        @start()
        def begin(self) -> str:
            raise ValueError("bad")

    return _error_of(Desk().kickoff)


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def kickoff_for_each() -> Any:
    return crew(task("t", agent("a"))).kickoff_for_each([{"n": 1}, {"n": 2}])


@scenario(
    "".join(
        f"""\
workflow crew-{n} ok
  task t [{n}] ok
    agent {n} ok
      llm scripted-1 [{n}] ok 12+3 tokens
      tool search [{n}] ok
      llm scripted-1 [{n}] ok 12+3 tokens
"""
        for n in "abc"
    )
)
def three_concurrent_crews() -> Any:
    """Each starts while the model of the one before is at work."""
    results: dict[str, str] = {}
    models = {
        n: ScriptedLLM(replies=[act("search", query=n), final(f"{n} did it")], seconds=0.15)
        for n in "abc"
    }

    def work(name: str) -> None:
        worker = agent(name, llm=models[name], tools=[Search()])
        results[name] = crew(task("t", worker), name=f"crew-{name}").kickoff().raw

    threads = []
    for name, model in models.items():
        threads.append(threading.Thread(target=work, args=(name,)))
        threads[-1].start()
        model.wait_until_at_work()
    for thread in threads:
        thread.join()
    return sorted(results.items())


@scenario(
    """\
workflow crew error RuntimeError
  task t [a] error RuntimeError
    agent a error RuntimeError
      llm scripted-1 [a] error RuntimeError
"""
)
def llm_error() -> Any:
    worker = agent("a", RuntimeError("overloaded"), max_retry_limit=0)
    return _error_of(crew(task("t", worker)).kickoff)


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a error RuntimeError
      llm scripted-1 [a] error RuntimeError
    agent a ok attempt=2
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def llm_error_retried() -> Any:
    return crew(task("t", agent("a", RuntimeError("overloaded"), final("fine")))).kickoff()


@scenario(
    """\
workflow crew error RuntimeError
  task t [a] error RuntimeError
    agent a error RuntimeError
      llm scripted-1 [a] error RuntimeError
    agent a error RuntimeError attempt=2
      llm scripted-1 [a] error RuntimeError
"""
)
def llm_error_to_the_last() -> Any:
    worker = agent("a", RuntimeError("overloaded"), max_retry_limit=1)
    return _error_of(crew(task("t", worker)).kickoff)


@scenario(
    """\
workflow crew ok
  task t [boss] ok
    agent boss ok
      llm scripted-1 [boss] ok 12+3 tokens
      tool delegate_work_to_coworker [boss] ok
        agent worker error RuntimeError
          llm scripted-1 [worker] error RuntimeError
        agent worker error RuntimeError attempt=2
          llm scripted-1 [worker] error RuntimeError
      llm scripted-1 [boss] ok 12+3 tokens
  handoff boss → worker [boss] -> worker by delegation handed_off
"""
)
def delegation_to_one_who_fails() -> Any:
    asks = act("Delegate work to coworker", task="find cats", context="ctx", coworker="worker")
    boss = agent("boss", asks, final("alone"), allow_delegation=True)
    worker = agent("worker", RuntimeError("overloaded"), max_retry_limit=1)
    return crew(task("t", boss), agents=[boss, worker]).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
      chain human input [a] ok
      llm scripted-1 [a] ok 12+3 tokens
      chain human input [a] ok
  handoff a → b [a] -> b by context handed_off
  task u [b] ok
    agent b ok
      llm scripted-1 [b] ok 12+3 tokens
"""
)
def human_input_of_a_task() -> Any:
    said = iter(["Shorter, please.", ""])
    asked = task("t", agent("a", final("one two"), final("one")), human_input=True)
    with mock.patch("builtins.input", side_effect=said):
        return crew(asked, task("u", agent("b"))).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    retriever memory_retrieval [a] ok
      retriever memory_query [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
      llm scripted-1 [a] ok 12+3 tokens
      retriever memory_save [a] ok
        llm scripted-1 [a] ok 12+3 tokens
"""
)
def memory() -> Any:
    from crewai.memory.unified_memory import Memory

    keeper = ScriptedLLM(replies=['{"memories":["cats are nice"],"queries":[]}'])
    with tempfile.TemporaryDirectory() as folder:  # what it remembers changes what it does
        own = Memory(llm=keeper, embedder=embed, storage=folder)  # type: ignore[arg-type]
        return crew(task("t", agent("a")), memory=own).kickoff()


@scenario(
    """\
workflow crew ok
  task t [a] ok
    agent a ok
      chain reasoning [a] ok
        llm scripted-1 [a] ok 12+3 tokens
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def reasoning() -> Any:
    plan = "Plan: do it.\nREADY: I am ready to execute the task."
    return crew(task("t", agent("a", plan, final("x"), reasoning=True))).kickoff()


@scenario(
    """\
workflow crew ok
  task Based on these tasks summary: Task Number 1 [Task Execution Planner] ok
    agent Task Execution Planner ok
      llm scripted-1 [Task Execution Planner] ok 12+3 tokens
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
"""
)
def planning() -> Any:
    plans = '{"list_of_plans_per_task":[{"task_number":1,"task":"t","plan":"do it"}]}'
    planner = ScriptedLLM(replies=[final(plans)])
    return crew(task("t", agent("a")), planning=True, planning_llm=planner).kickoff()


@scenario("agent solo ok\n  llm scripted-1 [solo] ok 12+3 tokens\n")
def lone_agent() -> Any:
    return agent("solo").kickoff("hello").raw


@scenario(
    """\
workflow Desk ok
  task begin ok
    chain human input ok
"""
)
def human_input_in_a_flow() -> Any:
    class Desk(Flow):  # type: ignore[type-arg]
        @start()
        def begin(self) -> Any:
            return self.ask("Who are you?")

    class Clerk:
        def request_input(self, *args: Any, **kwargs: Any) -> str:
            return "Bob"

    return Desk(input_provider=Clerk()).kickoff()


def _error_of(run: Callable[[], Any]) -> str:
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


logging.getLogger("crewai").setLevel(logging.CRITICAL)
