"""Monitor everything that CrewAI runs: here a flow with a router, and a crew in one of its methods."""

from crewai_model import Scripted  # isort: skip - it keeps CrewAI offline

from crewai import Agent, Crew, Task
from crewai.flow.flow import Flow, listen, router, start

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_integrations.crewai import CrewListener


class Desk(Flow):
    """Routes a question to a crew, or answers it at once."""

    @start()
    def take(self) -> str:
        """Take the question."""
        return "Is A-1042 paid?"

    @router(take)
    def route(self) -> str:
        """Choose who answers."""
        return "crew"

    @listen("crew")
    def ask_a_crew(self) -> str:
        """Let a crew answer."""
        clerk = Agent(
            role="billing",
            goal="know invoices",
            backstory="an accountant",
            llm=Scripted("Thought: paid.\nFinal Answer: A-1042 was paid on Monday."),
        )
        task = Task(name="look up", description="Is it?", expected_output="a fact", agent=clerk)
        return str(Crew(name="billing", agents=[clerk], tasks=[task]).kickoff().raw)

    @listen("at once")
    def answer(self) -> str:
        """Answer without asking anybody."""
        return "I do not know."


def main() -> None:
    """Run the flow, and print its tree."""
    with Monitor("parquet:./llmops_data") as monitor:
        with CrewListener(monitor):
            print(Desk().kickoff())
        monitor.flush()
        root = monitor.query(name="Desk", order=["-start_time"], limit=1).to_pylist()[0]
        print(span_tree(spans_from_arrow(monitor.query(trace_id=root["trace_id"]))))


if __name__ == "__main__":
    main()
