"""Which runs are recorded: one crew's, everything's; attached, detached, and side by side."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading

import pytest

pytest.importorskip("crewai")

from crewai.events.event_bus import crewai_event_bus
from crewai.flow.flow import Flow, listen, start
from crewai_kit import ScriptedLLM, act, agent, crew, final, task

from llmops_core import ConfigError, Monitor
from llmops_integrations.crewai import CrewListener, monitor_crew
from llmops_integrations.crewai.listener import BLOCK, bus


def one(name: str = "crew", **more):
    return crew(task("t", agent("a", **more)), name=name)


def roots(spans) -> list[str]:
    return sorted(s.name for s in spans() if s.parent_id is None)


TREE = """\
workflow {name} ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
"""


# ---- one crew ----


def test_a_block_records_its_crew_and_no_other(spans):
    mine, other = one("mine"), one("other")
    with monitor_crew(mine, spans.monitor):
        mine.kickoff()
        other.kickoff()
    mine.kickoff()
    assert spans.tree() == TREE.format(name="mine")


@pytest.mark.parametrize("way", ["kickoff", "kickoff_async", "akickoff", "kickoff_for_each"])
def test_every_way_to_run_a_crew_is_recorded(way, spans):
    mine = one("mine")
    with monitor_crew(mine, spans.monitor):
        if way == "kickoff_for_each":
            mine.kickoff_for_each([{"n": 1}])
        elif way == "kickoff":
            mine.kickoff()
        else:
            asyncio.run(getattr(mine, way)())
    assert spans.tree() == TREE.format(name="mine")


async def test_tasks_in_blocks_of_one_listener_each_leave_their_own(spans):
    listener = monitor_crew(one("mine"), spans.monitor)
    inside, go = asyncio.Event(), asyncio.Event()

    async def first():
        with listener:
            inside.set()
            await go.wait()
        return BLOCK.get()

    async def second():
        await inside.wait()
        with listener:
            go.set()
            assert await leaving is None
            assert BLOCK.get() is not None
        return BLOCK.get()

    leaving = asyncio.create_task(first())
    assert await asyncio.create_task(second()) is None
    assert not listener.attached


def test_attach_and_detach_do_the_same_without_a_block(spans):
    mine, other = one("mine"), one("other")
    listener = monitor_crew(mine, spans.monitor)
    mine.kickoff()
    assert listener.attach() is listener
    assert listener.attached
    mine.kickoff()
    other.kickoff()
    listener.detach()
    listener.detach()
    mine.kickoff()
    assert roots(spans) == ["mine"]
    assert not listener.attached


def test_nothing_is_left_on_the_bus_when_nobody_listens(spans):
    def handlers() -> int:
        return sum(len(h) for h in crewai_event_bus._sync_handlers.values())

    before = handlers()
    first, second = CrewListener(spans.monitor).attach(), CrewListener(spans.monitor).attach()
    assert handlers() > before
    first.detach()
    assert handlers() > before
    second.detach()
    assert handlers() == before


def test_a_crew_inside_a_flow_that_is_not_monitored_is_a_root(spans):
    inner = one("inner")

    class Desk(Flow):
        @start()
        def begin(self):
            return inner.kickoff().raw

    with monitor_crew(inner, spans.monitor):
        Desk().kickoff()
    assert spans.tree() == TREE.format(name="inner")


def test_a_flow_and_an_agent_can_be_monitored_by_name_too(spans):
    class Desk(Flow):
        @start()
        def begin(self):
            return "x"

        @listen(begin)
        def go_on(self, given):
            return given

    class Other(Desk):
        pass

    flow, solo = Desk(), agent("solo")
    with monitor_crew(flow, spans.monitor), monitor_crew(solo, spans.monitor):
        flow.kickoff()
        Other().kickoff()
        solo.kickoff("hello")
        agent("other").kickoff("hello")
    assert roots(spans) == ["Desk", "solo"]


@pytest.mark.parametrize("wrong", ["crew", None, {}, ScriptedLLM])
def test_what_is_no_crew_is_refused_with_what_to_do(wrong, spans):
    with pytest.raises(ConfigError, match="Expected a Crew, a Flow or an Agent"):
        monitor_crew(wrong, spans.monitor)


# ---- everything ----


def test_everything_is_recorded_once_however_often_it_is_attached(spans):
    mine = one("mine")
    with (
        CrewListener(spans.monitor),
        CrewListener(spans.monitor),
        monitor_crew(mine, spans.monitor),
    ):
        mine.kickoff()
    assert spans.tree() == TREE.format(name="mine")


def test_two_monitors_get_the_same_tree(spans):
    with Monitor(storage="memory:", durability="memory") as other:
        from llmops_core.testing.fixtures import CapturedSpans

        second = CapturedSpans(other, spans.clock)
        with CrewListener(spans.monitor), CrewListener(other):
            one("shared").kickoff()
        assert spans.tree() == second.tree() == TREE.format(name="shared")


def test_crews_that_run_at_once_never_mix_into_one_trace(spans):
    names = [f"crew-{n}" for n in range(6)]
    crews = {
        name: crew(task("t", agent(name, act("x", q="1"), final(name), seconds=0.02)), name=name)
        for name in names
    }
    with CrewListener(spans.monitor):
        threads = [threading.Thread(target=c.kickoff) for c in crews.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stored = spans()
    by_trace = {}
    for span in stored:
        by_trace.setdefault(span.trace_id, set()).add(span.agent or span.name)
    assert sorted(tuple(sorted(found)) for found in by_trace.values()) == [(n,) for n in names]


# ---- who asks ----


def test_session_user_and_tags_are_told_of_each_run(spans):
    mine = one("mine")

    def work(session: str) -> None:
        with monitor_crew(
            mine.copy(), spans.monitor, session_id=session, user_id="bob", tags=["beta"]
        ) as listener:
            listener._subject.kickoff()

    threads = [threading.Thread(target=work, args=(f"chat-{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = spans()
    assert {s.session_id for s in stored} == {"chat-0", "chat-1", "chat-2"}
    assert len({(s.trace_id, s.session_id) for s in stored}) == 3
    assert {s.user_id for s in stored} == {"bob"}
    assert {s.tags for s in stored if s.parent_id is None} == {("beta",)}


# ---- the bus ----


def test_a_scope_of_the_bus_hides_us_and_gives_us_back(spans):
    with CrewListener(spans.monitor):
        with crewai_event_bus.scoped_handlers():
            one("hidden").kickoff()
        one("seen").kickoff()
    assert roots(spans) == ["seen"]


def test_attaching_again_mends_what_a_scope_of_the_bus_took_off(spans):
    listener = CrewListener(spans.monitor)
    with crewai_event_bus.scoped_handlers():
        listener.attach()
        one("inside").kickoff()
    one("lost").kickoff()
    listener.attach()
    one("seen").kickoff()
    listener.detach()
    assert roots(spans) == ["inside", "seen"]
    assert not bus.listening


def test_a_flush_waits_for_the_bus(spans, monkeypatch):
    from llmops_integrations.crewai.listener import Bus

    handle = Bus.llmops_handle
    gate = threading.Event()

    def late(self, source, event):
        if event.type == "crew_kickoff_completed":
            gate.wait(10)
        handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", late)
    with CrewListener(spans.monitor):
        one().kickoff()
        threading.Timer(0.3, gate.set).start()
        spans.monitor.flush(10)
    assert spans.monitor.query(kind="workflow").num_rows == 1


def test_events_that_are_restored_from_a_checkpoint_are_not_recorded_again(spans):
    seen = []
    from crewai.events.types.crew_events import CrewKickoffStartedEvent

    crewai_event_bus.register_handler(CrewKickoffStartedEvent, lambda s, e: seen.append((s, e)))
    with crewai_event_bus.scoped_handlers():
        pass
    with CrewListener(spans.monitor):
        one("first").kickoff()
        crewai_event_bus.flush()
        source, event = seen[0]
        event = event.model_copy(update={"event_id": "00000000-0000-4000-8000-000000000001"})
        crewai_event_bus.replay(source, event)
        crewai_event_bus.flush()
    assert roots(spans) == ["first"]


# ---- the end of the program ----


def test_a_script_that_never_flushes_stores_its_crew(tmp_path):
    here = str(__import__("pathlib").Path(__file__).parent)
    script = f"""
        import sys
        sys.path.insert(0, {here!r})
        from crewai_kit import agent, crew, task
        from llmops_core import Monitor
        from llmops_integrations.crewai import CrewListener
        CrewListener(Monitor("parquet:data")).attach()
        crew(task("t", agent("a"))).kickoff()
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from llmops_core import open_storage, span_tree, spans_from_arrow

    with open_storage(f"parquet:{tmp_path / 'data'}") as storage:
        assert span_tree(spans_from_arrow(storage.query())) == TREE.format(name="crew")


# ---- a fork ----


def test_a_child_attaches_though_another_thread_of_its_parent_was_at_it():
    script = """
import faulthandler, os, threading
from llmops_core import Monitor
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import BLOCK, bus
held = threading.Event()
def hold():
    with bus._lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
assert held.wait(20)
pid = os.fork()
if pid == 0:
    faulthandler.dump_traceback_later(60, exit=True)
    with CrewListener(Monitor("memory:")):
        os._exit(0)
os._exit(os.waitpid(pid, 0)[1] >> 8)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
