"""How LangChain's and LangGraph's objects are read when they are frozen.

Each reader sees an object through its fields alone, so neither framework is imported here, no
property or ``model_dump`` runs, and subclasses are covered by their base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmops_core import know

if TYPE_CHECKING:
    from llmops_core.freeze.freezer import Fields, Message

__all__ = ["register"]

_ROLES: Final = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "function",
}


def register() -> None:
    """Teach the freezer these types. Called on import of the integration; repeating it is free."""
    know("langchain_core.messages.base", "BaseMessage", _message)
    know("langchain_core.prompt_values", "StringPromptValue", _only("text"))
    know("langchain_core.prompt_values", "ChatPromptValue", _only("messages"))
    know("langchain_core.prompt_values", "ImagePromptValue", _only("image_url"))
    know("langchain_core.documents.base", "Document", _fields("page_content", "metadata", "id"))
    know("langchain_core.outputs.generation", "Generation", _only("text"))
    know("langchain_core.outputs.chat_generation", "ChatGeneration", _only("message"))
    know("langchain_core.outputs.chat_result", "ChatResult", _generations)
    know("langchain_core.outputs.llm_result", "LLMResult", _generations)
    know("langgraph.types", "Command", _fields("goto", "update", "resume", "graph"))
    know("langgraph.types", "Send", _fields("node", "arg"))
    know("langgraph.types", "Interrupt", _fields("value", "id"))
    know("langgraph.types", "Overwrite", _only("value"))
    know("langgraph.types", "GraphOutput", _only("value"))


def _message(message: object, fields: Fields) -> Message:
    """Read a message; a RemoveMessage is one too, of role ``remove``."""
    return fields.message(
        _role(fields),
        fields.get("content"),
        fields.get("name"),
        fields.get("tool_calls"),
        fields.get("tool_call_id"),
    )


def _role(fields: Fields) -> Any:
    kind = fields.constant("type")
    if type(kind) is not str:
        return kind
    if kind in _ROLES:
        return _ROLES[kind]
    if kind in {"chat", "ChatMessageChunk"}:
        return fields.get("role")
    # A chunk's type is the name of its class: AIMessageChunk, HumanMessageChunk, ...
    return _ROLES.get(kind.removesuffix("MessageChunk").lower(), kind)


def _fields(*names: str) -> Any:
    """Make a reader of the named fields, in that order."""

    def read(value: object, fields: Fields) -> dict[str, Any]:
        return {name: fields.get(name) for name in names}

    return read


def _only(name: str) -> Any:
    """Make a reader of an object that is only a wrapper of one field."""

    def read(value: object, fields: Fields) -> Any:
        return fields.get(name)

    return read


def _generations(value: object, fields: Fields) -> Any:
    """Read a model's result: its one generation where there is one, else the lists of them."""
    found = fields.get("generations")
    while type(found) is list and len(found) == 1:
        found = found[0]
    return found
