"""What a run's start is translated to does not depend on what was translated before it."""

from __future__ import annotations

from uuid import UUID

import pytest

pytest.importorskip("langchain_core")

from llmops_integrations.langchain import mapping, metadata, outlines, translate

NODE = {
    "ls_integration": "langgraph",
    "langgraph_step": 1,
    "langgraph_node": "fetch",
    "langgraph_triggers": ("branch:to:fetch",),
    "langgraph_path": ("__pregel_pull", "fetch"),
    "langgraph_checkpoint_ns": "fetch:1f",
}


def _hostile(*names):
    def bomb(self, *args):
        raise AssertionError("a method of the user's ran")

    return type("Hostile", (), dict.fromkeys(names, bomb))()


class _Translator:
    """One handler's memory of what it translated."""

    def __init__(self):
        metadata._readings.clear()
        self.known = outlines.Outlines()

    def __call__(
        self, about, tags=("graph:step:1",), name="fetch", parent=0, extra=None, named=False
    ):
        values = tuple(about.values())
        outline = self.known.find(name, tags, about, values, extra or {}, True, parent, named)
        return {"facts": outline.facts, **outline.fill(values)}


@pytest.fixture
def translated():
    return _Translator()


def _twice(*starts):
    """Translate each start alone, and all of them in one row, forwards and backwards."""
    alone = [_Translator()(**start) for start in starts]
    forwards, backwards = _Translator(), _Translator()
    return (
        alone,
        [forwards(**start) for start in (*starts, *starts)][len(starts) :],
        [backwards(**start) for start in (*reversed(starts), *starts)][len(starts) :],
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"about": {**NODE, "langgraph_node": "other"}},
        {"about": {**NODE, "langgraph_step": 2}},
        {"about": {**NODE, "langgraph_checkpoint_ns": "outer:1|fetch:2"}},
        {"about": {**NODE, "langgraph_triggers": ("join:a+b:fetch",)}},
        {"about": {**NODE, "langgraph_path": ("__pregel_push", 0, False)}},
        {"about": {**NODE, "ls_integration": "langchain_create_agent"}},
        {"about": {**NODE, "lc_agent_name": "boss"}},
        {"about": {**NODE, "tenant": "acme"}},
        {"about": {**NODE, "tenant": 7}},
        {"about": {**NODE, "thread_id": "t", "user_id": "u", "session_id": "s"}},
        {"about": dict(reversed(NODE.items()))},
        {"about": NODE, "tags": ("seq:step:1",)},
        {"about": NODE, "tags": ("graph:step:1", "mine")},
        {"about": NODE, "tags": ("graph:step:1", "a\0b")},
        {"about": NODE, "tags": ("graph:step:1", "retry:attempt:2")},
        {"about": NODE, "name": "helper"},
        {"about": NODE, "parent": mapping.AGENT_RUN},
        {"about": NODE, "extra": {"run_type": None}},
        {"about": NODE, "extra": {"run_type": "prompt"}},
        {"about": NODE, "named": True},
    ],
)
def test_a_start_is_translated_as_if_it_were_the_first(changed):
    alone, *later = _twice({"about": NODE}, changed)
    assert later == [alone, alone]


def test_true_and_one_are_told_apart():
    task = {**NODE, "langgraph_path": ("__pregel_push", ("x",), 0, True)}
    number = {**NODE, "langgraph_path": ("__pregel_push", ("x",), 0, 1)}
    starts = [{"about": about, "tags": ("seq:step:1",)} for about in (task, number)]
    alone, *later = _twice(*starts)
    assert [found["facts"] & mapping.TASK for found in alone] == [mapping.TASK, 0]
    assert later == [alone, alone]


def test_metadata_that_two_sets_of_keys_spell_alike_is_read_by_its_own():
    one, two = {"a\0b": "x", "c": "y"}, {"a": "x", "b\0c": "y"}
    starts = [{"about": one}, {"about": two}, {"about": {"a": "1", "b": "2", "c": "3"}}]
    alone, *later = _twice(*starts)
    assert later == [alone, alone]
    assert alone[0]["attributes"] == one
    assert alone[1]["attributes"] == two


def test_no_run_changes_what_is_remembered_for_the_next(translated):
    first = translated(NODE)
    first["attributes"]["langgraph.node"] = first["name"] = "changed"
    assert translated(NODE)["attributes"]["langgraph.node"] == "fetch"
    assert translated(NODE)["name"] == "fetch"


def test_values_that_change_with_each_run_are_read_each_time(translated):
    found = [translated({**NODE, "request": n, "langgraph_step": n})["step"] for n in range(3)]
    assert found == [0, 1, 2]
    assert len(translated.known) == 1


def test_what_is_remembered_is_bounded(translated, monkeypatch):
    monkeypatch.setattr(outlines, "MAX_OUTLINES", 10)
    monkeypatch.setattr(metadata, "_MAX_READINGS", 10)
    for number in range(100):
        translated({**NODE, f"key{number}": "x"}, name=f"run {number}")
    assert len(translated.known) <= 10
    assert len(metadata._readings) <= 10


def test_keys_of_one_request_are_not_remembered(translated):
    """A thousand ids as keys, or one that is huge: nothing of them is worth its memory."""
    for number in range(5):
        translated({**{f"doc-{number}-{at}": 1 for at in range(1_000)}, **NODE})
        translated({**NODE, f"{number}" * 100_000: 1})
    assert len(metadata._readings) == len(translated.known) == 0


@pytest.mark.parametrize("many", [10, 1_000])
def test_what_the_frameworks_tell_is_found_behind_many_keys(translated, many):
    own = {f"doc-{at}": at for at in range(many)}
    about = {**own, **NODE, "session_id": "s", "langgraph_step": 7}
    found = translated(about)
    alone = translated({**NODE, "session_id": "s", "langgraph_step": 7})
    told = {name: value for name, value in found["attributes"].items() if name not in own}
    assert told == alone["attributes"]
    assert {**found, "attributes": told} == alone
    assert len(found["attributes"]) - len(told) == min(many, metadata.MAX_ATTRIBUTES)


# ---- nothing of the user's runs ----


@pytest.mark.parametrize("key", ["langgraph_node", "ls_integration", "lc_agent_name",
                                 "langgraph_path", "langgraph_triggers", "thread_id",
                                 "langgraph_step", "langgraph_checkpoint_ns"])  # fmt: skip
def test_a_value_of_the_user_s_is_neither_compared_nor_hashed(translated, key):
    bomb = _hostile("__eq__", "__hash__", "__str__", "__bool__", "__len__", "__iter__")
    for value in (bomb, (bomb,), ((bomb, 1),)):
        for _ in range(2):
            assert translated({**NODE, key: value})["name"] == "fetch"


def test_a_tag_of_the_user_s_is_neither_compared_nor_hashed(translated):
    class Loud(str):
        __slots__ = ()

        def __eq__(self, other):
            raise AssertionError

        __hash__ = startswith = partition = __eq__

    for tags in (["graph:step:1", Loud("graph:step:1")], [Loud("langsmith:hidden")], [object()]):
        assert translated(NODE, tags=tags)["name"] == "fetch"


def test_a_key_of_the_user_s_is_read_by_its_text():
    class Key(str):
        __slots__ = ()
        calls = 0

        def __eq__(self, other):
            raise AssertionError

        def __hash__(self):
            type(self).calls += 1
            return 7

    about = {Key("tenant"): "acme"}
    calls = Key.calls
    assert metadata.identity_fields(None, about)["attributes"] == {"tenant": "acme"}
    assert metadata.identity_fields(None, {1: "x", "tenant": "b"})["attributes"] == {"tenant": "b"}
    assert Key.calls == calls


def test_an_input_that_looks_like_a_placeholder_is_not_compared():
    assert not translate.is_placeholder({"input": _hostile("__eq__", "__bool__", "__len__")})


def test_metadata_of_the_framework_s_is_not_compared_with_the_user_s_values():
    bomb = _hostile("__eq__", "__ne__", "__hash__")
    about = {**NODE, "ls_integration": bomb, "langgraph_node": bomb, "lc_agent_name": bomb}
    found = mapping.facts("fetch", (), about, {"run_type": bomb}, has_parent=True)
    assert found == 0


def test_a_uuid_names_a_session_each_time(translated):
    for number in range(3):
        session = UUID(int=number)
        assert translated({"session_id": session})["session_id"] == str(session)
