"""Monitor a task with a guardrail: what it refuses is tried again, and both tries are kept."""

from crewai_model import Scripted  # isort: skip - it keeps CrewAI offline

from crewai import Agent, Crew, Task
from crewai.tasks.task_output import TaskOutput

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_integrations.crewai import monitor_crew


def short(output: TaskOutput):  # type: ignore[no-untyped-def]
    """Refuse what is longer than 20 characters."""
    return (True, output.raw) if len(output.raw) <= 20 else (False, "longer than 20 characters")


def main() -> None:
    """Run the crew, and print its tree."""
    poet = Agent(
        role="poet",
        goal="write",
        backstory="a poet",
        llm=Scripted(
            "Thought: so.\nFinal Answer: The moon that rose above the hill is gone.",
            "Thought: shorter.\nFinal Answer: The moon is gone.",
        ),
    )
    task = Task(
        name="poem",
        description="A line on the moon.",
        expected_output="a line",
        agent=poet,
        guardrail=short,
    )
    crew = Crew(name="poets", agents=[poet], tasks=[task])

    with Monitor("parquet:./llmops_data") as monitor:
        with monitor_crew(crew, monitor):
            print(crew.kickoff().raw)
        monitor.flush()
        root = monitor.query(name="poets", order=["-start_time"], limit=1).to_pylist()[0]
        print(span_tree(spans_from_arrow(monitor.query(trace_id=root["trace_id"]))))


if __name__ == "__main__":
    main()
