"""Monitor a LangChain chain with a callback handler: nothing else in the chain changes."""

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

from llmops_core import default_monitor
from llmops_integrations.langchain import LLMOpsCallbackHandler


@tool
def stock(item: str) -> int:
    """Say how many of an item are left."""
    if item == "unicorn":
        raise LookupError("no such item: unicorn")
    return len(item)


def main() -> None:
    """Invoke, stream and batch a chain, call a tool that fails, and say what was recorded."""
    answers = iter(AIMessage(f"Answer number {n} of the shop.") for n in range(100))
    model = GenericFakeChatModel(messages=answers)
    chain = (
        ChatPromptTemplate.from_template("A customer asks: {question}") | model | StrOutputParser()
    )
    monitored = {
        "callbacks": [LLMOpsCallbackHandler()],
        "metadata": {"session_id": "customer-17", "user_id": "u-4"},
        "tags": ["shop"],
    }

    print(chain.invoke({"question": "Do you sell chairs?"}, monitored))
    for piece in chain.stream({"question": "And tables?"}, monitored):
        print(piece, end="")
    print()
    print(chain.batch([{"question": "A lamp?"}, {"question": "A rug?"}], monitored))
    print(stock.invoke({"item": "chair"}, monitored))
    try:
        stock.invoke({"item": "unicorn"}, monitored)
    except LookupError as error:
        print("the tool's own exception, as without monitoring:", error)

    monitor = default_monitor()
    monitor.flush()
    for row in monitor.query(
        session_id="customer-17", group_by=["kind", "outcome"], aggregates=["count"]
    ).to_pylist():
        print(row)


if __name__ == "__main__":
    main()
