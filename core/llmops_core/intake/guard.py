"""Counts what runs use, on the host's threads, and says when a run is to be stopped.

There is a guard only where the user set limits. It keeps a small node for each open run, so that
children share the counts of their root, and a count for each session and tenant; both are bounded.
A call takes a lock for about a microsecond. Nothing here blocks, raises, or reads any content.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from llmops_core.breakers import Breakers
from llmops_core.errors import BreakerTripped
from llmops_core.intake.turns import Node, agent_started, asked, is_ping_pong, model_started

__all__ = ["Guard", "Tally"]

#: Open runs that are remembered; past it the oldest is forgotten, and what starts below it is a root.
MAX_OPEN: Final = 100_000
#: Sessions and tenants that are counted; past it the one that was used longest ago is forgotten.
MAX_COUNTED: Final = 10_000
_NS: Final = 1_000_000_000
#: What is refused once a run is stopped. What merely holds these (a chain) may start, and fails.
_REFUSED: Final = frozenset({"llm", "tool", "agent", "task", "retriever", "embedding"})
_SCOPES: Final = ("session", "user", "project")


class Count:
    """What a session or a tenant used since its window began."""

    __slots__ = ("calls", "since_ns", "tokens")

    def __init__(self, now_ns: int) -> None:
        self.since_ns = now_ns
        self.calls = self.tokens = 0


class Tally:
    """What one run used: everything below one root."""

    __slots__ = ("calls", "named", "since_ns", "stopped", "tokens", "trace", "turns")

    def __init__(self, now_ns: int, trace: str) -> None:
        self.since_ns = now_ns
        self.trace = trace
        self.calls = self.tokens = 0
        #: Session and user.
        self.named: dict[str, str] = {}
        #: Why it was stopped: scope, limit, allowed, used.
        self.stopped: tuple[str, str, float, float] | None = None
        #: Agents by turns, where only their order is known (a crew).
        self.turns: list[str] = []


class Guard:
    """The limits of one monitor, and what counts against them. Safe from any thread."""

    def __init__(self, breakers: Breakers, clock_ns: Callable[[], int]) -> None:
        self.breakers = breakers
        self.clock_ns = clock_ns
        self.after_fork()
        # Ordered by C: the first key of a plain dict is searched for among all that were deleted.
        self._open: OrderedDict[int, Node] = OrderedDict()
        self._counts: OrderedDict[tuple[str, str], Count] = OrderedDict()
        self._stopped: dict[str, int] = {}
        self._refused = 0
        self._window_ns = int(breakers.window_seconds * _NS)
        # Read at each call: an attribute of one's own is nearer.
        self._seconds, self._fan_out = breakers.seconds, breakers.fan_out
        self._ping_pong, self._calls, self._tokens = (
            breakers.ping_pong,
            breakers.calls,
            breakers.tokens,
        )
        told = breakers.limits
        #: Which scopes have a budget: name, tokens, calls.
        self._budgets = tuple(
            (scope, told.get(f"{scope}_tokens"), told.get(f"{scope}_calls"))
            for scope in _SCOPES
            if f"{scope}_tokens" in told or f"{scope}_calls" in told
        )
        #: Finds the tally of what another framework has open here.
        self.elsewhere: list[Callable[[], Tally | None]] = []

    def after_fork(self) -> None:
        """Make a lock of one's own: another thread of the parent's may have held it."""
        # Re-entrant: a generator that the garbage collector closes may end a run inside a call.
        self.lock = threading.RLock()

    def stats(self) -> dict[str, Any]:
        """Return the limits, the runs that each one stopped, and how many starts were refused."""
        return {
            "limits": self.breakers.limits,
            "stopped": dict(self._stopped),
            "refused": self._refused,
            "open": len(self._open),
            "counted": len(self._counts),
        }

    # ---- runs ----

    def started(
        self, run_id: int, parent_id: int | None, fields: dict[str, Any], promotable: bool
    ) -> Tally | None:
        """Count a start. Returns the run's tally if it is to be refused."""
        kind = fields.get("kind")
        with self.lock:
            if run_id in self._open:
                return None
            parent = self._open.get(parent_id) if parent_id is not None else None
            tally = parent.tally if parent is not None else self._tally(run_id)
            if not tally.named:
                self.name(tally, fields.get("session_id"), fields.get("user_id"))
            node = Node(tally, parent, kind, fields.get("name"), promotable)
            self._open[run_id] = node
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return tally if kind in _REFUSED and self._is_over(node, fields) else None

    def ended(self, run_id: int, fields: dict[str, Any]) -> None:
        """Count what a run used, and forget it."""
        with self.lock:
            node = self._open.pop(run_id, None)
            if node is None:
                return
            if node.parent is not None and node.counted:
                node.parent.children -= 1
            if node.kind == "llm":
                used = (fields.get("input_tokens") or 0) + (fields.get("output_tokens") or 0)
                if used:
                    self.add_tokens(node.tally, used)

    def is_late(self, run_id: int) -> Tally | None:
        """Return the tally of a run that streams and is to be stopped; None if it may go on."""
        node = self._open.get(run_id)
        if node is None:
            return None
        with self.lock:
            tally = node.tally
            return tally if tally.stopped or self._is_out_of_time(tally) else None

    def promoted(self, run_id: int) -> None:
        """Take note that a run turns out to be an agent."""
        node = self._open.get(run_id)
        if node is not None:
            node.kind = "agent"

    def asked(self, run_id: int, target: object) -> None:
        """Take note that a run hands over to another: both are agents, though none calls a model."""
        turns = self.breakers.ping_pong
        node = self._open.get(run_id)
        if turns is not None and node is not None and type(target) is str:
            with self.lock:
                asked(node, target, turns)

    def error(self, tally: Tally) -> BreakerTripped:
        """Return what is raised where a run is refused."""
        self._refused += 1
        scope, limit, allowed, used = tally.stopped or ("run", "", 0, 0)
        error = BreakerTripped(
            _found(scope, limit, used),
            f"expected {'less than ' if limit == 'ping_pong' else 'at most '}{allowed:,}"
            f" (breakers: {_setting(scope, limit)}={allowed:g})",
            f"see what it did with: llmops trace {tally.trace}; or raise the limit",
        )
        error.scope, error.limit, error.allowed, error.used = scope, limit, allowed, used
        return error

    # ---- for frameworks whose runs are told late ----

    def model_call(self, tally: Tally, agent: str | None) -> bool:
        """Count a model call of a run; True if it is to be refused."""
        with self.lock:
            if tally.stopped or self._is_out_of_time(tally):
                return True
            turns = self.breakers.ping_pong
            if turns is not None and agent and is_ping_pong(tally.turns, agent, turns):
                return self.stop(tally, "run", "ping_pong", turns, turns)
            return self._is_over_budget(tally)

    def new_tally(self, trace: str) -> Tally:
        """Return an empty tally."""
        return Tally(self.clock_ns(), trace)

    def tally_of(self, run_id: int | None) -> Tally | None:
        """Return the tally of a run that is open."""
        node = self._open.get(run_id) if run_id is not None else None
        return node.tally if node is not None else None

    def name(self, tally: Tally, session: object, user: object) -> None:
        """Say whose run it is."""
        if type(session) is str and session:
            tally.named["session"] = session
        if type(user) is str and user:
            tally.named["user"] = user

    def add_tokens(self, tally: Tally, used: int) -> None:
        """Count tokens of a run, its session and its tenants."""
        with self.lock:
            tally.tokens += used
            for scope, _, _ in self._budgets:
                count = self._count(scope, tally)
                if count is not None:
                    count.tokens += used

    def stop(self, tally: Tally, scope: str, limit: str, allowed: float, used: float) -> bool:
        """Stop a run; True."""
        tally.stopped = (scope, limit, allowed, used)
        name = _setting(scope, limit)
        self._stopped[name] = self._stopped.get(name, 0) + 1
        return True

    # ---- inside ----

    def _tally(self, run_id: int) -> Tally:
        for find in self.elsewhere:
            found = find()
            if found is not None:
                return found
        return Tally(self.clock_ns(), f"{run_id:032x}")

    def _is_over(self, node: Node, fields: dict[str, Any]) -> bool:
        tally = node.tally
        if tally.stopped or (self._seconds is not None and self._is_out_of_time(tally)):
            return True
        parent, most = node.parent, self._fan_out
        if parent is not None:
            node.counted = True
            parent.children += 1
            if most is not None:
                at_once = max(parent.children, parent.in_step(fields))
                if at_once > most:
                    return self.stop(tally, "run", "fan_out", most, at_once)
        turns = self._ping_pong
        if turns is not None and self._is_ping_pong(node, turns):
            return self.stop(tally, "run", "ping_pong", turns, turns)
        return node.kind == "llm" and self._is_over_budget(tally)

    @staticmethod
    def _is_ping_pong(node: Node, turns: int) -> bool:
        if node.kind == "llm":
            return model_started(node, turns)
        if node.kind == "agent":
            return agent_started(node, turns)
        asked_here = node.parent.asked if node.parent is not None else None
        return asked_here is not None and node.name in asked_here and agent_started(node, turns)

    def _is_out_of_time(self, tally: Tally) -> bool:
        limit = self._seconds
        if limit is None:
            return False
        used = (self.clock_ns() - tally.since_ns) / _NS
        return used > limit and self.stop(tally, "run", "seconds", limit, round(used, 3))

    def _is_over_budget(self, tally: Tally) -> bool:
        """Whether a model call would be over a budget; if not, it is counted."""
        calls, tokens = self._calls, self._tokens
        if calls is not None and tally.calls >= calls:
            return self.stop(tally, "run", "calls", calls, tally.calls)
        if tokens is not None and tally.tokens >= tokens:
            return self.stop(tally, "run", "tokens", tokens, tally.tokens)
        if not self._budgets:
            tally.calls += 1
            return False
        counts = [(b, self._count(b[0], tally)) for b in self._budgets]
        for (scope, most_tokens, most_calls), count in counts:
            if count is None:
                continue
            if most_calls is not None and count.calls >= most_calls:
                return self.stop(tally, scope, "calls", most_calls, count.calls)
            if most_tokens is not None and count.tokens >= most_tokens:
                return self.stop(tally, scope, "tokens", most_tokens, count.tokens)
        tally.calls += 1
        for _, count in counts:
            if count is not None:
                count.calls += 1
        return False

    def _count(self, scope: str, tally: Tally) -> Count | None:
        name = "" if scope == "project" else tally.named.get(scope)
        if name is None:
            return None
        now, key = self.clock_ns(), (scope, name)
        count = self._counts.get(key)
        if count is None or now - count.since_ns >= self._window_ns:
            count = self._counts[key] = Count(now)
            if len(self._counts) > MAX_COUNTED:
                self._counts.popitem(last=False)
        self._counts.move_to_end(key)
        return count


def _setting(scope: str, limit: str) -> str:
    return limit if scope == "run" else f"{scope}_{limit}"


def _found(scope: str, limit: str, used: float) -> str:
    """Say what was found. A budget of calls or tokens is spent, and one more call was to be made."""
    if limit == "ping_pong":
        return f"two agents passed the work to and fro {used:g} times"
    if limit == "fan_out":
        return f"one step started {used:g} runs at once"
    if limit == "seconds":
        return f"the {scope} took {used:g} s"
    what = "model calls" if limit == "calls" else limit
    return f"the {scope} used {used:,} {what} and was to make another call"
