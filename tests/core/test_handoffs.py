"""Handoffs from starts, ends and requests alone: asked, confirmed, dropped, inferred."""

from __future__ import annotations

from typing import Any

import pytest

from llmops_core.config import Settings
from llmops_core.freeze.freezer import Frozen
from llmops_core.freeze.messages import FrozenMessage
from llmops_core.intake.queue import END, HANDOFF, PROMOTE, START
from llmops_core.intake.tracer import Tracer, span_id_of

MS = 1_000_000


def frozen(value: Any) -> Frozen:
    return Frozen(value, False, 0, 0)


def message(role: str, content: str, call: str | None = None) -> FrozenMessage:
    return FrozenMessage(role, content, None, [], call)


class Play:
    """Feeds a tracer, one millisecond apart, and reads its handoffs."""

    def __init__(self) -> None:
        self.now = 0
        self.tracer = Tracer(Settings(), self)

    def monotonic_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now

    def _put(
        self, what: int, run: int, parent: int | None, fields: dict[str, Any], flag: bool
    ) -> None:
        self.now += MS
        self.tracer.feed((what, run, parent, self.now, self.now, fields, 0, flag))

    def node(self, run: int, name: str, parent: int = 1, step: int = 1, given: Any = None) -> None:
        """Start a node that becomes an agent when it calls a model."""
        fields = {"kind": "task", "name": name, "agent": name, "step": step, "input": given}
        self._put(START, run, parent, fields, True)

    def start(self, run: int, parent: int | None, kind: str, name: str, given: Any = None) -> None:
        self._put(START, run, parent, {"kind": kind, "name": name, "input": given}, False)

    def model(self, run: int, parent: int, asks: list[Any], says: Any) -> None:
        self.start(run, parent, "llm", "m", frozen(asks))
        self.end(run, output=frozen(says))

    def end(self, run: int, **fields: Any) -> None:
        self._put(END, run, None, fields, False)

    def ask(self, run: int, target: str, how: str = "command", **fields: Any) -> None:
        asked = {"target_agent": target, "handoff_mechanism": how, **fields}
        self._put(HANDOFF, run, None, asked, False)

    def promote(self, run: int) -> None:
        self._put(PROMOTE, run, None, {}, False)

    @property
    def found(self) -> list[dict[str, Any]]:
        return [d for d in self.tracer.finished if d["kind"] == "handoff"]

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [
            (
                d["agent"],
                d["target_agent"],
                d["handoff_mechanism"],
                d["handoff_confirmed"],
                d["outcome"],
            )
            for d in self.found
        ]


@pytest.fixture
def play() -> Play:
    started = Play()
    started.start(1, None, "workflow", "desk")
    return started


def test_a_request_is_confirmed_by_the_start_of_its_target(play: Play) -> None:
    play.node(2, "triage")
    play.ask(2, "billing")
    asked = play.now
    play.end(2)
    play.node(3, "billing")
    started = play.now
    play.end(3)
    play.end(1)
    (handoff,) = play.found
    assert play.told == [("triage", "billing", "command", True, "handed_off")]
    assert handoff["parent_id"] == span_id_of(1), "beside its source, not below it"
    assert handoff["duration_ms"] == (started - asked) / MS
    assert handoff["name"] == "triage → billing"
    assert play.tracer.made == len(play.tracer.finished)


def test_a_request_that_nobody_answers_is_stored_when_the_root_ends(play: Play) -> None:
    play.node(2, "triage")
    play.ask(2, "billing")
    play.end(2)
    play.node(3, "shipping")
    play.end(3)
    assert play.found == []
    play.end(1)
    assert play.told == [("triage", "billing", "command", False, "incomplete")]


def test_two_requests_to_one_name_need_two_starts(play: Play) -> None:
    play.node(2, "plan")
    for _ in range(3):
        play.ask(2, "work", "send")
    play.end(2)
    for run in (3, 4):
        play.node(run, "work")
        play.end(run)
    play.end(1)
    assert [t[3] for t in play.told] == [True, True, False]


def test_a_transfer_tool_and_its_own_command_are_one_handoff(play: Play) -> None:
    play.node(2, "triage")
    play.ask(2, "billing", "transfer", tool_call_id="c1")
    play.ask(2, "billing", "command")
    play.ask(2, "billing", "send")
    play.end(2, outcome="handed_off")
    play.node(3, "billing")
    play.end(3)
    play.end(1)
    assert play.told == [("triage", "billing", "transfer", True, "handed_off")]


def test_a_request_to_oneself_is_none(play: Play) -> None:
    play.node(2, "triage")
    play.ask(2, "triage")
    play.end(2)
    play.end(1)
    assert play.found == []


def test_the_handoff_hangs_beside_the_node_around_a_prebuilt_agent(play: Play) -> None:
    play.node(2, "alice")
    play.start(3, 2, "agent", "alice")
    play.start(4, 3, "task", "tools")
    play.ask(4, "bob", "transfer")
    for run in (4, 3, 2):
        play.end(run, outcome="handed_off")
    play.node(5, "bob")
    play.start(6, 5, "agent", "bob")
    for run in (6, 5, 1):
        play.end(run)
    assert play.told == [("alice", "bob", "transfer", True, "handed_off")]
    assert play.found[0]["parent_id"] == span_id_of(1)


def test_a_request_to_the_parent_graph_is_answered_there(play: Play) -> None:
    play.node(2, "outer")
    play.start(3, 2, "chain", "inner graph")
    play.node(4, "inner", parent=3)
    play.ask(4, "elsewhere")
    for run in (4, 3, 2):
        play.end(run, outcome="handed_off")
    play.node(5, "elsewhere")
    play.end(5)
    play.end(1)
    assert [t[:4] for t in play.told] == [("inner", "elsewhere", "command", True)]


def test_what_went_over_is_new_to_the_target_and_nobody_elses_words(play: Play) -> None:
    user, own = message("user", "order A-1042 is late"), message("assistant", "please check A-1042")
    play.node(2, "triage")
    play.model(3, 2, [user], own)
    play.ask(2, "billing", "transfer", tool_call_id="c1", input=frozen({"reason": "late"}))
    play.end(2)
    play.node(4, "billing")
    said = message("tool", "Successfully transferred to billing")
    back = message("assistant", "Transferring back to supervisor")
    own_tool = message("tool", "any words of a handoff tool", "c1")
    note = message("system", "you are billing")
    play.model(5, 4, [note, user, own, said, back, own_tool], message("assistant", "ok"))
    play.end(4)
    play.end(1)
    (handoff,) = play.found
    assert handoff["input"].value == {"output": own, "passed": {"reason": "late"}}
    assert handoff["output"].value == [note, own]


def test_an_edge_between_two_agents_is_inferred_once(play: Play) -> None:
    for run, name in ((2, "writer"), (4, "reviewer")):
        play.node(run, name, step=run // 2)
        play.model(run + 1, run, [], message("assistant", name))
        play.end(run)
    play.end(1)
    assert play.told == [("writer", "reviewer", "edge", True, "handed_off")]
    assert play.found[0]["input"].value == message("assistant", "writer")


def test_no_edge_is_inferred_over_a_step_between_or_from_a_node_that_is_no_agent(
    play: Play,
) -> None:
    play.node(2, "writer", step=1)
    play.model(3, 2, [], "x")
    play.end(2)
    play.node(4, "plain", step=2)
    play.end(4)
    play.node(5, "reviewer", step=3)
    play.model(6, 5, [], "y")
    play.end(5)
    play.end(1)
    assert play.found == []


def test_an_edge_back_to_who_handed_off_is_a_return(play: Play) -> None:
    play.node(2, "supervisor", step=1)
    play.model(3, 2, [], "x")
    play.ask(2, "worker")
    play.end(2)
    play.node(4, "worker", step=2)
    play.model(5, 4, [], "y")
    play.end(4)
    play.node(6, "supervisor", step=3)
    play.model(7, 6, [], "z")
    play.end(6)
    play.end(1)
    assert [t[:3] for t in play.told] == [
        ("supervisor", "worker", "command"),
        ("worker", "supervisor", "return"),
    ]


def test_an_agent_inside_a_tool_was_handed_the_tools_arguments(play: Play) -> None:
    play.start(2, 1, "agent", "boss")
    play.start(3, 2, "tool", "ask_math", frozen({"q": "6*7"}))
    play.start(4, 3, "agent", "mathy")
    play.model(5, 4, [message("user", "6*7")], "42")
    for run in (4, 3, 2, 1):
        play.end(run)
    assert play.told == [("boss", "mathy", "tool", True, "handed_off")]
    assert play.found[0]["input"].value == {"q": "6*7"}
    assert play.found[0]["output"].value == [message("user", "6*7")]


def test_a_graph_that_turns_out_to_be_an_agent_is_one_and_its_nodes_are_not(play: Play) -> None:
    play.start(2, 1, "chain", "supervisor")
    play.node(3, "agent", parent=2)
    play.promote(2)
    play.model(4, 3, [], "x")
    play.end(3)
    play.end(2)
    play.end(1)
    kinds = {d["name"]: (d["kind"], d["agent"]) for d in play.tracer.finished}
    assert kinds["supervisor"] == ("agent", "supervisor")
    assert kinds["agent"][0] == "task"


def test_what_handoffs_remember_is_let_go(play: Play) -> None:
    for run in range(2, 200, 2):
        play.node(run, f"n{run}", step=run)
        play.model(run + 1, run, [message("user", "x" * 1000)], "y")
        play.end(run)
    play.end(1)
    remembered = play.tracer._ended.values()
    assert not any(r.first_llm_input or r.last_llm_output or r.ended_agents for r in remembered)


def test_a_request_of_a_run_that_nobody_knows_is_counted(play: Play) -> None:
    play.ask(99, "billing")
    assert play.tracer.notes == {"handoff_of_unknown_run": 1}


def test_agents_of_a_graph_inside_a_node_hand_off_inside_it(play: Play) -> None:
    play.node(2, "team")
    play.start(3, 2, "chain", "team graph")
    for run, name in ((4, "lead"), (6, "worker")):
        fields = {"kind": "task", "name": name, "agent": "team", "step": run // 2}
        play._put(START, run, 3, fields, True)
        play.start(run + 1, run, "agent", name)
        if name == "lead":
            play.ask(run + 1, "worker")
        for ended in (run + 1, run):
            play.end(ended)
    for run in (3, 2, 1):
        play.end(run)
    assert play.told == [("lead", "worker", "command", True, "handed_off")]
    assert play.found[0]["parent_id"] == span_id_of(3)


def test_nodes_that_work_for_one_agent_hand_off_by_their_own_names(play: Play) -> None:
    play.node(2, "desk")
    play.start(3, 2, "chain", "inner")
    for run, name in ((4, "first"), (5, "second")):
        fields = {"kind": "task", "name": name, "agent": "desk", "step": run}
        play._put(START, run, 3, fields, True)
        if name == "first":
            play.ask(run, "second")
        play.end(run)
    for run in (3, 2, 1):
        play.end(run)
    assert play.told == [("first", "second", "command", True, "handed_off")]


def test_a_loop_of_edges_returns_nobody(play: Play) -> None:
    for run, name in ((2, "writer"), (4, "reviewer"), (6, "writer")):
        play.node(run, name, step=run // 2)
        play.model(run + 1, run, [], message("assistant", name))
        play.end(run)
    play.end(1)
    assert [t[2] for t in play.told] == ["edge", "edge"]


def test_what_the_root_sends_out_is_no_handoff(play: Play) -> None:
    play.ask(1, "work", "send")
    play.node(2, "work")
    play.end(2)
    play.end(1)
    assert play.found == []


def test_a_transfer_that_its_tool_refused_is_none(play: Play) -> None:
    play.node(2, "triage")
    play.start(3, 2, "tool", "transfer_to_billing")
    play.ask(3, "billing", "transfer", tool_call_id="1")
    play.end(3, outcome="error")
    play.start(4, 2, "tool", "transfer_to_billing")
    play.ask(4, "billing", "transfer", tool_call_id="2", input=frozen({"order": 4711}))
    play.end(4)
    play.end(2, outcome="handed_off")
    play.node(5, "billing")
    play.end(5)
    play.end(1)
    (handoff,) = play.found
    assert (handoff["tool_call_id"], handoff["handoff_confirmed"]) == ("2", True)


def test_an_edge_is_not_guessed_where_several_ran_side_by_side(play: Play) -> None:
    for run, name in ((2, "billing"), (3, "shipping")):
        play.node(run, name, step=1)
        play.model(run + 10, run, [], "x")
    for run in (2, 3):
        play.end(run)
    play.node(4, "reviewer", step=2)
    play.model(14, 4, [], "y")
    play.end(4)
    play.end(1)
    assert play.found == []


def test_a_join_names_its_sources_and_gets_one_edge(play: Play) -> None:
    for run, name in ((2, "billing"), (3, "shipping"), (4, "stray")):
        play.node(run, name, step=1)
        play.model(run + 10, run, [], "x")
    for run in (3, 2, 4):
        play.end(run)
    play.node(5, "reviewer", step=2)
    waits = {"langgraph.triggers": '["join:billing+shipping:reviewer"]'}
    play.tracer._open[5].fields["attributes"] = waits
    play.model(15, 5, [], "y")
    play.end(5)
    play.end(1)
    assert [t[:3] for t in play.told] == [("billing", "reviewer", "edge")]


def test_who_says_the_same_again_says_something(play: Play) -> None:
    yes, ask = message("assistant", "yes"), message("user", "refund 42?")
    play.node(2, "triage")
    play.model(3, 2, [yes, ask], yes)
    play.ask(2, "billing")
    play.end(2)
    play.node(4, "billing")
    play.model(5, 4, [yes, ask, yes], "ok")
    play.end(4)
    play.end(1)
    assert play.found[0]["output"].value == [yes]


def test_a_command_to_the_parent_graph_is_not_answered_inside(play: Play) -> None:
    play.node(2, "sub")
    play.start(3, 2, "chain", "inner graph")
    play.start(4, 3, "task", "i")
    play.ask(4, "t", _to_parent=True)
    play.start(5, 3, "task", "t")
    for run in (5, 4, 3, 2):
        play.end(run, outcome="handed_off")
    play.start(6, 1, "task", "t")
    play.end(6)
    play.end(1)
    assert [(d["parent_id"], d["handoff_confirmed"]) for d in play.found] == [(span_id_of(1), True)]


def test_one_run_answers_every_command_to_it(play: Play) -> None:
    for run in (2, 3):
        play.node(run, f"team{run}")
        play.ask(run, "review")
        play.ask(run, "review")
    for run in (2, 3):
        play.end(run)
    play.node(4, "review", step=2)
    play.end(4)
    play.end(1)
    assert sorted(t[0] for t in play.told) == ["team2", "team3"]
    assert all(t[3] for t in play.told)


def test_requests_beyond_the_limit_are_counted(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops_core.intake.handoffs.MAX_PENDING", 2)
    play.node(2, "plan")
    for number in range(5):
        play.ask(2, f"work{number}", "send")
    play.end(2)
    play.end(1)
    assert len(play.found) == 2
    assert play.tracer.notes == {"handoff_limit": 3}


def test_agents_without_a_model_pass_on_what_their_node_returns(play: Play) -> None:
    play.start(2, 1, "agent", "a", frozen({"n": 0}))
    play.ask(2, "b")
    play.end(2, output=frozen({"n": 0, "said": "order 4711"}))
    play.start(3, 1, "agent", "b", frozen({"n": 0, "said": "order 4711"}))
    play.end(3)
    play.end(1)
    assert play.found[0]["output"].value == {"said": "order 4711"}
