"""What a decorator was told, checked once; and the start and the end of one call of it.

:meth:`Operation.begin` and the ``finish_*`` methods run on the caller's thread around every call.
They never raise and never wait.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import Any, Final

from llmops_core import context, holding, nesting
from llmops_core.context import add_session_fields, new_root_id, new_run_id
from llmops_core.decorating.arguments import Arguments
from llmops_core.decorating.interrupted import Interrupted
from llmops_core.decorating.usage import usage_fields
from llmops_core.errors import BreakerTripped
from llmops_core.freeze.error_text import describe_error
from llmops_core.freeze.type_names import mro_of, name_of, type_name
from llmops_core.intake.drafts import span_id_of
from llmops_core.intake.recorder import Recorder
from llmops_core.measuring.published import keep_live
from llmops_core.nesting import ACTIVE, ActiveCall, close, leave

__all__ = ["FRAMEWORK", "TARGET", "Operation", "is_a", "is_cancelled"]

FRAMEWORK: Final = "python"
#: The attribute, or the parameter, that names the agent a transfer goes to.
TARGET: Final = "target_agent"

#: By package and name: trio and gevent stay unimported.
_CANCELLED: Final = frozenset(
    {
        ("asyncio", "CancelledError"),
        ("concurrent", "CancelledError"),
        ("builtins", "KeyboardInterrupt"),
        ("trio", "Cancelled"),
        ("greenlet", "GreenletExit"),
    }
)
_ARGS: Final = vars(BaseException)["args"].__get__


class Operation:
    """One decorated function: what is recorded of its calls."""

    __slots__ = ("_child", "_end", "_has_ids", "_ok", "_only", "_root", "arguments", "attributes",
                 "collectors", "fixed", "kind", "model", "name", "session_from", "target",
                 "trace_from")  # fmt: skip

    def __init__(
        self,
        name: str,
        kind: str | None,
        arguments: Arguments,
        *,
        attributes: dict[str, Any] | None,
        model: dict[str, str],
        fixed: Recorder | None,
        collectors: tuple[str, ...],
        session_from: str | None,
        trace_from: str | None,
        target: str | None = None,
    ) -> None:
        self.name = name
        #: None: ``chain``, or ``workflow`` where it is a root.
        self.kind = kind
        self.arguments = arguments
        self.attributes = attributes
        self.model = model
        self.fixed = fixed
        #: Published ones among them need the call's own objects.
        self.collectors = collectors
        self.session_from = session_from
        self.trace_from = trace_from
        #: Of a transfer: the agent that is to take over, or "" where an argument names it.
        self.target = target
        self._has_ids = session_from is not None or trace_from is not None
        #: One parameter, and no ``self`` to leave out.
        self._only = arguments.is_single and arguments.first == 0
        # What is the same in each call is put together once: a copy is cheaper.
        self._end: dict[str, Any] = {"name": name} if kind is None else {"name": name, "kind": kind}
        self._ok = {**self._end, "outcome": "ok"}
        self._root = self._start_fields("workflow")
        self._child = self._start_fields("chain")

    def _start_fields(self, kind: str) -> dict[str, Any]:
        fields = {"kind": self.kind or kind, "name": self.name, "framework": FRAMEWORK}
        if self.attributes is not None:
            fields["attributes"] = self.attributes  # type: ignore[assignment]
        return {**fields, **self.model}

    # ---- starts ----

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActiveCall | None:
        """Record the start and make the call the one that is active here; None if that failed.

        Raises only what a breaker that the user set raises.
        """
        try:
            call = self.place()
            self.start(call, args, kwargs)
            call.token = ACTIVE.set(call)
        except BreakerTripped:
            raise
        except Exception as error:
            try:  # noqa: SIM105 - its frames would not have room either
                self._report("begin", error)
            except Exception:  # noqa: S110 - at the limit of recursion
                pass
            return None
        return call

    def place(self) -> ActiveCall:
        """Return a new call; its parent is the nearest of the decorated and the framework's runs."""
        recorder = self.fixed or holding.default_recorder()
        outer = nesting.outer_run(recorder)
        above = nesting.active_call()
        if above is None and outer is None:
            return ActiveCall(new_root_id(), None, recorder, None, None)
        around = nesting.nearest_here(recorder, outer)
        if around is None:
            return ActiveCall(new_root_id(), None, recorder, None, above)
        call = ActiveCall(new_run_id(), around.run_id, recorder, None, above)
        call.outer = None if outer is None else outer.run_id
        call.trace = around.trace
        # A framework that tells its runs late, as CrewAI does, may tell this one's parent later.
        call.late_parent = around.told_late
        return call

    def start(self, call: ActiveCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the start of a call that was placed."""
        recorder = call.recorder
        parent = call.parent
        if self._only and not kwargs and len(args) == 1:  # the most common call
            content = args[0]
        else:
            content = self.arguments.content(args, kwargs)
        fields = (self._root if parent is None else self._child).copy()
        fields["input"] = recorder.freeze(content)
        if parent is not None or self._has_ids:  # of a root the recorder sees to it
            add_session_fields(fields)
        if self._has_ids:
            self._add_ids(fields, parent, args, kwargs)
        if call.late_parent:
            fields["_late_parent"] = True
        trace = recorder.start(call.run_id, parent, fields)
        if parent is None:
            call.trace = trace or call.run_id
        if self.target is not None:
            self._ask(call, fields["input"], args, kwargs)

    def _ask(
        self, call: ActiveCall, given: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Record that the agent around a transfer asks another one to take over."""
        target = self.target or context.id_text(self.arguments.value(TARGET, args, kwargs))
        if target:
            fields = {"target_agent": target, "handoff_mechanism": "transfer", "input": given}
            call.recorder.handoff(call.run_id, {**fields, "framework": FRAMEWORK})

    def _add_ids(
        self,
        fields: dict[str, Any],
        parent: int | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Take session and trace from arguments; a trace only starts at a root."""
        find = self.arguments.value
        session = context.id_text(find(self.session_from, args, kwargs))
        if session is not None:
            fields["session_id"] = session
        if parent is None:
            name = context.id_text(find(self.trace_from, args, kwargs))
            if name is not None:
                fields["_trace_id"] = context.trace_id_of(name, fields.get("session_id"))
                fields["attributes"] = {**(self.attributes or {}), "trace_name": name}

    def place_safely(self) -> ActiveCall | None:
        """Place a call whose body starts later: a generator's. None if that failed."""
        try:
            return self.place()
        except Exception as error:
            try:  # noqa: SIM105 - its frames would not have room either
                self._report("begin", error)
            except Exception:  # noqa: S110 - at the limit of recursion
                pass
            return None

    def start_safely(self, call: ActiveCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the start of a call that was placed before."""
        try:
            self.start(call, args, kwargs)
        except BreakerTripped:
            raise
        except Exception as error:
            try:  # noqa: SIM105 - its frames would not have room either
                self._report("begin", error)
            except Exception:  # noqa: S110 - at the limit of recursion
                pass

    # ---- ends ----

    def finish_ok(
        self,
        call: ActiveCall,
        result: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Record that a call returned, and leave it."""
        try:
            leave(call)
            close(call)
            recorder = call.recorder
            fields = self._ok.copy()
            try:
                if self.collectors:
                    keep_live(span_id_of(call.run_id), self.collectors, result, args, kwargs or {})
                if self.kind == "llm":
                    fields.update(usage_fields(result))
                fields["output"] = recorder.freeze(result)
            except Exception as error:  # the end is told all the same
                self._report("finish", error)
            recorder.end(call.run_id, call.parent, fields)
        except Exception as error:
            self._report("finish", error)

    def finish_error(
        self,
        call: ActiveCall,
        error: BaseException,
        output: object = None,
        usage: dict[str, Any] | None = None,
    ) -> None:
        """Record that a call raised, and leave it."""
        try:
            leave(call)
            try:
                fields = error_fields(error)
                if output is None and is_a(error, Interrupted):
                    args = _ARGS(error)
                    output = call.recorder.freeze(args[0] if len(args) == 1 else args)
            except Exception as failure:  # the end is told all the same
                self._report("finish", failure)
                fields = {"outcome": "error", "error_type": type_name(type(error))}
            if usage:
                fields.update(usage)
            if output is not None:
                fields["output"] = output
            self.end(call, fields)
        except Exception as failure:
            self._report("finish", failure)

    def end(self, call: ActiveCall, fields: dict[str, Any]) -> None:
        """Record the end of a call."""
        close(call)
        call.recorder.end(call.run_id, call.parent, {**self._end, **fields})

    def enter(self, call: ActiveCall) -> None:
        """Make a call the active one again: its generator runs on, wherever it is read.

        What is around the reader is only looked up if it is asked for: most items run nothing.
        """
        call.reader = copy_context()
        call.token = ACTIVE.set(call)

    def leave(self, call: ActiveCall) -> None:
        """Make what was active before the active one again."""
        leave(call)

    def _report(self, where: str, error: Exception) -> None:
        """Count a failure of ours. Raises only where there is no room for this call itself.

        That is so at a start near the limit of recursion; what started had the room to end.
        """
        try:
            recorder = self.fixed or holding.default_recorder()
            recorder.report(where, error)
        except Exception:  # noqa: S110 - it cannot be told: telling it is what failed
            pass


def error_fields(error: BaseException) -> dict[str, Any]:
    """Return outcome, type and message of what a call raised."""
    for read in nesting.error_readers:
        fields = read(error)
        if fields is not None:
            return fields
    if is_cancelled(error):
        return {"outcome": "cancelled"}
    if is_a(error, GeneratorExit):
        return {"outcome": "abandoned"}
    if is_a(error, Interrupted):
        return {"outcome": "interrupted"}
    name, message = describe_error(error)
    return {"outcome": "error", "error_type": name, "error_message": message}


def is_cancelled(error: BaseException) -> bool:
    """Whether an exception says that a call was stopped from outside."""
    for base in mro_of(type(error)):
        module, name = name_of(base)
        if (module.partition(".")[0], name) in _CANCELLED:
            return True
    return False


def is_a(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception is of a class: isinstance may run a property of the exception's."""
    return any(base is kind for base in mro_of(type(error)))
