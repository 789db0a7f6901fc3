"""Monitor a crew whose manager delegates work to one coworker and asks another a question."""

from crewai_model import Scripted  # isort: skip - it keeps CrewAI offline

import json

from crewai import Agent, Crew, Process, Task

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_integrations.crewai import monitor_crew


def ask_for(tool: str, **arguments: str) -> str:
    """Return what a model says when it wants a tool."""
    return f"Thought: ask.\nAction: {tool}\nAction Input: {json.dumps(arguments)}"


def main() -> None:
    """Run the crew, and print who handed what to whom."""
    support = Agent(
        role="billing",
        goal="know invoices",
        backstory="an accountant",
        llm=Scripted("Thought: paid.\nFinal Answer: A-1042 was paid on Monday."),
    )
    shipping = Agent(
        role="shipping",
        goal="know parcels",
        backstory="a courier",
        llm=Scripted("Thought: soon.\nFinal Answer: It comes tomorrow."),
    )
    manager = Scripted(
        ask_for(
            "Delegate work to coworker",
            task="Find out whether A-1042 was paid.",
            context="The customer waits on the phone.",
            coworker="billing",
        ),
        ask_for(
            "Ask question to coworker",
            question="When does it come?",
            context="Order A-1042.",
            coworker="shipping",
        ),
        "Thought: done.\nFinal Answer: It was paid on Monday and comes tomorrow.",
    )
    task = Task(name="answer", description="Where is A-1042?", expected_output="an answer")
    crew = Crew(
        name="support desk",
        agents=[support, shipping],
        tasks=[task],
        process=Process.hierarchical,
        manager_llm=manager,
    )

    with Monitor("parquet:./llmops_data") as monitor:
        with monitor_crew(crew, monitor):
            print(crew.kickoff().raw)
        monitor.flush()
        root = monitor.query(name="support desk", order=["-start_time"], limit=1).to_pylist()[0]
        spans = spans_from_arrow(monitor.query(trace_id=root["trace_id"]))
        print(span_tree(spans))
        for span in spans:
            if span.kind == "handoff":
                print(f"{span.name} ({span.handoff_mechanism}): received {span.output!r}")


if __name__ == "__main__":
    main()
