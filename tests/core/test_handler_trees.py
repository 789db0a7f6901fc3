"""Trees with lines that a framework adds are told in full, and compared without them."""

from __future__ import annotations

import pytest

from llmops_core.testing.around import whole, without_added

TOLD = """\
+ agent clerk ok
+   llm scripted-1 [clerk] ok 12+3 tokens
    tool add [clerk] ok
      llm inner [clerk] ok
"""


def test_the_whole_tree_has_every_line_at_its_depth():
    assert whole(TOLD) == (
        "agent clerk ok\n"
        "  llm scripted-1 [clerk] ok 12+3 tokens\n"
        "  tool add [clerk] ok\n"
        "    llm inner [clerk] ok\n"
    )


def test_what_is_below_an_added_line_moves_up_with_all_below_it():
    told = "+ workflow Desk ok\n+   task ask ok\n      tool add ok\n    tool end ok\n"
    assert without_added(told) == "tool add ok\ntool end ok\n"
    assert without_added("  workflow w ok\n+   task t ok\n      tool add ok\n") == (
        "workflow w ok\n  tool add ok\n"
    )


def test_an_added_agent_takes_its_name_with_it():
    assert without_added(TOLD) == "tool add ok\n  llm inner ok\n"


def test_an_agent_of_the_scenario_keeps_its_name_below_it():
    told = "+ task t [boss] ok\n    agent boss ok\n      tool add [boss] ok\n"
    assert without_added(told) == "agent boss ok\n  tool add [boss] ok\n"


@pytest.mark.parametrize(
    ("line", "alone"),
    [
        ("llm m ok 12+3 tokens", "llm m ok attempt=2 12+3 tokens"),
        ("llm m error ValueError", "llm m error ValueError attempt=2"),
        ("llm m ok 1+1 tokens streamed", "llm m ok attempt=2 1+1 tokens streamed"),
        ("tool add ok attempt=3", "tool add ok attempt=3"),
    ],
)
def test_the_attempt_of_an_added_line_is_that_of_the_line_below(line, alone):
    assert without_added(f"+ agent a ok attempt=2\n    {line}\n") == f"{alone}\n"


def test_a_tree_without_signs_stays_as_it_is():
    told = "  workflow w ok\n    tool add [a] ok attempt=2\n"
    assert without_added(told) == whole(told) == "workflow w ok\n  tool add [a] ok attempt=2\n"
