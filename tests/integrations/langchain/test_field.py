"""What users of other tools suffer from, each as a test. Numbers are those of the field's list."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import threading
import time
import tracemalloc
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_kit import CompletionModel, add, failures_of_ours, recording, scripted

from llmops_core import Monitor
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import Reply
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler


class Watcher(BaseCallbackHandler):
    """Another tool's handler: it only counts."""

    def __init__(self, *, inline: bool = False) -> None:
        self.run_inline = inline
        self.seen: list[str] = []

    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("end")


# ---- 7: parents come from run ids ----


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_07_items_of_a_batch_do_not_nest(way, spans: CapturedSpans):  # noqa: F811
    config = {"callbacks": [LLMOpsCallbackHandler(spans.monitor)], "run_name": "item"}
    program = RunnableLambda(lambda x: add.invoke({"a": x, "b": 1}))
    if way == "batch":
        program.batch([1, 2, 3], config)
    else:
        await program.abatch([1, 2, 3], config)
    assert spans.tree() == "workflow item ok\n  tool add ok\n" * 3


async def test_07_interleaved_tasks_keep_their_parents(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)

    async def work(x):
        await asyncio.sleep(0)
        await add.ainvoke({"a": x, "b": 1})
        await asyncio.sleep(0)
        return await add.ainvoke({"a": x, "b": 2})

    await asyncio.gather(
        *(
            RunnableLambda(work).ainvoke(n, {"callbacks": [handler], "run_name": "item"})
            for n in range(10)
        )
    )
    assert spans.tree() == "workflow item ok\n  tool add ok\n  tool add ok\n" * 10


# ---- 8: langchain issue 39633 ----


async def test_08_where_another_handler_is_inline_our_start_is_lost_and_the_span_is_not(
    spans: CapturedSpans,  # noqa: F811
):
    ours = LLMOpsCallbackHandler(spans.monitor, inline=False)
    await CompletionModel().ainvoke("x", {"callbacks": [Watcher(inline=True), ours]})
    (span,) = spans()
    assert (span.kind, span.outcome, span.output) == ("llm", "ok", "It is 4.")
    assert span.duration_ms is None


@pytest.mark.parametrize(("inline", "seen"), [(True, ["end"]), (False, ["start", "end"])])
async def test_08_inline_hides_async_completion_starts_from_others(
    inline,
    seen,
    spans: CapturedSpans,  # noqa: F811
):
    """What the page on LangChain says of ``inline``. It fails when LangChain has mended it."""
    watcher = Watcher()
    ours = LLMOpsCallbackHandler(spans.monitor, inline=inline)
    await CompletionModel().ainvoke("x", {"callbacks": [ours, watcher]})
    assert watcher.seen == seen
    assert spans.tree() == "llm scripted-1 ok\n"


@pytest.mark.parametrize("inline", [True, False])
async def test_08_chat_models_are_seen_by_all(inline, spans: CapturedSpans):  # noqa: F811
    watcher = Watcher()
    watcher.on_chat_model_start = lambda *args, **kwargs: watcher.seen.append("start")
    ours = LLMOpsCallbackHandler(spans.monitor, inline=inline)
    await scripted("hi").ainvoke("x", {"callbacks": [ours, watcher]})
    assert watcher.seen == ["start", "end"]
    assert spans.tree() == "llm scripted-1 ok 12+3 tokens\n"


# ---- 9: one handler, many runs ----


async def test_09_one_handler_keeps_concurrent_sessions_apart(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)

    async def work(x):
        return await add.ainvoke({"a": x, "b": 0})

    await asyncio.gather(
        *(
            RunnableLambda(work).ainvoke(
                n, {"callbacks": [handler], "metadata": {"session_id": f"s{n}"}}
            )
            for n in range(50)
        )
    )
    stored = spans()
    assert len(stored) == 100
    for span in stored:
        assert span.output == span.session_id[1:]


def test_09_the_same_handler_twice_records_once(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    model = scripted("hi", callbacks=[handler])
    model.invoke("x", {"callbacks": [handler]})
    assert spans.tree() == "llm scripted-1 ok 12+3 tokens\n"


def test_09_two_handlers_of_one_monitor_record_once(spans: CapturedSpans):  # noqa: F811
    handlers = [LLMOpsCallbackHandler(spans.monitor) for _ in range(2)]
    scripted("hi").invoke("x", {"callbacks": handlers})
    assert spans.tree() == "llm scripted-1 ok 12+3 tokens\n"


# ---- 11: bounded state ----


def test_11_nothing_is_kept_of_runs_that_ended(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    program = RunnableLambda(lambda x: add.invoke({"a": x, "b": 0}))

    def run(times):
        for n in range(times):
            program.invoke(n, {"callbacks": [handler]})

    _, recorder, config = recording()
    recorder.events = _Forgetful()
    ours = config["callbacks"][0]
    program.invoke(1, config)
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for n in range(2_000):
        program.invoke(n, config)
    grown = tracemalloc.take_snapshot().compare_to(before, "filename")
    tracemalloc.stop()
    ours_grown = sum(s.size_diff for s in grown if "llmops_integrations" in s.traceback[0].filename)
    assert ours_grown < 20_000
    assert len(ours._runs) == 0
    run(100)
    assert len(handler._runs) == 0


class _Forgetful(list):
    def append(self, item):
        pass


# ---- 12: oversized payloads ----


def test_12_an_oversized_payload_is_cut_and_marked_and_kept(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    huge = "x" * 5_000_000
    result = RunnableLambda(lambda x: {"text": x, "more": [x] * 20}).invoke(
        huge, {"callbacks": [handler]}
    )
    assert len(result["more"]) == 20
    (span,) = spans()
    assert (span.outcome, span.input_truncated, span.output_truncated) == ("ok", True, True)
    assert span.input_size == 5_000_000
    assert 1_000 < len(span.input) < 20_000


# ---- 14: the encoder is total ----


@dataclasses.dataclass
class Point:
    x: int


class Hostile:
    """Whatever is asked of it, it fails."""

    def __getattribute__(self, name):
        raise SystemExit(name)

    __repr__ = __str__ = __len__ = __iter__ = __eq__ = __bool__ = __getattribute__
    __hash__ = None


def _cycle():
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


ODD = {
    "date": lambda: dt.datetime(2026, 1, 1),
    "cycle": _cycle,
    "dataclass": lambda: Point(1),
    "pydantic": lambda: HumanMessage("x"),
    "bytes": lambda: b"\x00\xff",
    "nan": lambda: float("nan"),
    "surrogate": lambda: "a\ud800b",
    "nul": lambda: "a\x00b",
    "set": lambda: {1, "a"},
    "keys": lambda: {1: "a", None: "b", (1, 2): "c"},
    "hostile": Hostile,
    "generator": lambda: (n for n in range(3)),
    "deep": lambda: __import__("functools").reduce(lambda inner, _: [inner], range(2_000), 1),
    "function": lambda: print,
    "huge int": lambda: 10**5_000,
}


@pytest.mark.parametrize("name", ODD)
def test_14_odd_values_go_through_and_never_raise(name, spans: CapturedSpans):  # noqa: F811
    value = ODD[name]()
    handler = LLMOpsCallbackHandler(spans.monitor)
    run_id = uuid4()
    handler.on_chain_start(None, {"value": value}, run_id=run_id, name="odd")
    handler.on_chain_end([value], run_id=run_id)
    (span,) = spans()
    assert (span.name, span.outcome) == ("odd", "ok")
    json.loads(span.input)
    json.loads(span.output)
    span.input.encode()
    assert failures_of_ours(spans.monitor) == {}


def test_14_numpy_arrays_go_through(spans: CapturedSpans):  # noqa: F811
    numpy = pytest.importorskip("numpy")
    handler = LLMOpsCallbackHandler(spans.monitor)
    RunnableLambda(lambda x: x).invoke(numpy.zeros((1_000, 1_000)), {"callbacks": [handler]})
    (span,) = spans()
    assert span.outcome == "ok"
    assert len(span.input) < 20_000


# ---- 19: per run, and once ----


def test_19_session_user_and_tags_are_of_a_run_not_of_a_process(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    for who in ("ann", "bob"):
        metadata = {"session_id": f"chat-{who}", "user_id": who, "tenant": who}
        config = {"callbacks": [handler], "metadata": metadata, "tags": [who]}
        RunnableLambda(lambda x: add.invoke({"a": x, "b": 0})).invoke(1, config)
    for who in ("ann", "bob"):
        mine = [s for s in spans() if s.user_id == who]
        assert [s.kind for s in sorted(mine, key=lambda s: s.start_time)] == ["workflow", "tool"]
        assert {s.session_id for s in mine} == {f"chat-{who}"}
        assert {s.tags for s in mine} == {(who,)}
        assert {s.attributes["tenant"] for s in mine} == {who}


def test_19_one_warning_for_each_distinct_problem(spans: CapturedSpans, caplog):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    for _ in range(100):
        handler.on_chain_start(None, {}, run_id="no uuid", name="odd")
    assert len([r for r in caplog.records if r.name.startswith("llmops")]) == 1


# ---- and no matter which kind of handler stands beside ours ----


async def test_other_handlers_beside_ours_are_not_disturbed(spans: CapturedSpans):  # noqa: F811
    class Other(AsyncCallbackHandler):
        seen = 0

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            Other.seen += 1

    ours = LLMOpsCallbackHandler(spans.monitor)
    await scripted(Reply("hi")).ainvoke("x", {"callbacks": [Other(), ours, Other()]})
    assert Other.seen == 2
    assert len(spans()) == 1


@pytest.mark.parametrize("end", ["flush", "close"])
def test_15_flush_and_close_return_by_their_deadline_and_say_what_was_lost(end):
    release = threading.Event()

    class Hangs(MemoryStorage):
        async def write(self, batch):
            release.wait(30)

    monitor = Monitor(Hangs())
    chain = RunnableLambda(lambda x: x + 1)
    assert chain.invoke(1, {"callbacks": [LLMOpsCallbackHandler(monitor)]}) == 2
    started = time.monotonic()
    report = getattr(monitor, end)(0.3)
    took = time.monotonic() - started
    release.set()
    assert not report.complete
    assert report.waiting == ("storage",)
    assert report.queued == 1, "what is not stored is said"
    assert took < 5, "a deadline of 0.3 s, on a machine that may be busy"
    monitor.close(5)
