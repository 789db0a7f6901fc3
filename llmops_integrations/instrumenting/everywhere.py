"""The handler that LangChain is given for every run of the process."""

from __future__ import annotations

import sys
from typing import Final

from llmops_integrations.instrumenting.attached import Attached
from llmops_integrations.langchain import LLMOpsCallbackHandler

__all__ = ["EverywhereHandler"]

#: Who reads ``run_inline``; before Python 3.12 a comprehension is a frame of its own.
_LIST: Final = "<listcomp>"
_START: Final = "on_llm_start"


class EverywhereHandler(LLMOpsCallbackHandler, Attached):
    """Records as a handler that is passed to a call. LangGraph's pauses reach it another way.

    It runs inline. LangChain hides the start of an async completion model from handlers that are not
    inline where one is (its issue 39633), and this one is beside those of other tools, which did not
    ask for it. So to the one function that does so it says that it is not inline; the function that
    then calls the handlers calls it inline all the same.
    """

    @property
    def run_inline(self) -> bool:
        frame = sys._getframe(1)
        if frame.f_code.co_name == _LIST and frame.f_back is not None:
            frame = frame.f_back
        return self._inline and frame.f_code.co_name != _START

    @run_inline.setter
    def run_inline(self, value: bool) -> None:
        self._inline = value
