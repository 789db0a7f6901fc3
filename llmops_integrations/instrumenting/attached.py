"""The handler that ``instrument()`` attaches to LangChain. Imported once LangChain is."""

from __future__ import annotations

from langchain_core.callbacks.base import BaseCallbackHandler

__all__ = ["Attached"]


class Attached(BaseCallbackHandler):
    """What LangChain looks for before it attaches one more, so that a run has one.

    It looks twice. Where monitoring is switched off in between it makes one of these, which does
    nothing.
    """
