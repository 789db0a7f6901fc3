"""Monitor a crew of three agents, and see what each handed to the next."""

from crewai_model import Scripted  # isort: skip - it keeps CrewAI offline

from crewai import Agent, Crew, Task
from crewai.tools import tool

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_integrations.crewai import monitor_crew


@tool("search")
def search(query: str) -> str:
    """Searches the notes."""
    return f"3 notes about {query}: they sleep 15 hours a day."


def agent(role: str, *lines: str) -> Agent:
    """Make an agent that says *lines*."""
    return Agent(role=role, goal="write about cats", backstory="an expert", llm=Scripted(*lines))


def main() -> None:
    """Run the crew, and print the tree and the handoffs."""
    researcher = agent(
        "researcher",
        'Thought: look.\nAction: search\nAction Input: {"query": "cats"}',
        "Thought: I know.\nFinal Answer: Cats sleep 15 hours a day.",
    )
    researcher.tools = [search]
    writer = agent("writer", "Thought: easy.\nFinal Answer: A cat's day has nine hours.")
    editor = agent("editor", "Thought: fine.\nFinal Answer: A cat's day has nine hours!")
    tasks = [
        Task(name=name, description=f"{name} it", expected_output="a sentence", agent=who)
        for name, who in (("research", researcher), ("write", writer), ("edit", editor))
    ]
    crew = Crew(name="press", agents=[researcher, writer, editor], tasks=tasks)

    with Monitor("parquet:./llmops_data") as monitor:
        with monitor_crew(crew, monitor, session_id="cats-1"):
            print(crew.kickoff().raw)
        monitor.flush()
        root = monitor.query(name="press", order=["-start_time"], limit=1).to_pylist()[0]
        spans = spans_from_arrow(monitor.query(trace_id=root["trace_id"]))
        print(span_tree(spans))
        for span in spans:
            if span.kind == "handoff":
                print(f"{span.name}: {span.input!r}")


if __name__ == "__main__":
    main()
