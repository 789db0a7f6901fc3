"""Entity extractors come through the same door as every other part."""

from __future__ import annotations

import pytest

from llmops_core import Registry, hookimpl
from llmops_core.cli import analyze
from llmops_core.errors import LLMOpsError
from llmops_core.plugins import PluginHost
from llmops_core.scanner import EntityExtractor, scan


class Colours:
    def extract(self, text: str) -> list[tuple[str, int, int]]:
        return [("colour", at, at + 4) for at in (text.find("teal"),) if at >= 0]


class Plugin:
    name = "colours"

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        registry.entity_extractor("colours", lambda argument: Colours())
        registry.entity_extractor("nothing", lambda argument: object())
        registry.analyzer("rows", lambda argument: object())


def test_a_registered_extractor_is_made_by_name_and_used() -> None:
    made = PluginHost([Plugin()]).part("entity_extractor", "colours")
    assert isinstance(made, EntityExtractor)
    assert [(e.type, e.text) for e in scan("a teal cup", [made])] == [("colour", "teal")]


def test_a_registered_analyzer_is_found_by_name() -> None:
    assert PluginHost([Plugin()]).registry.names("analyzer") == ["rows"]


def test_what_is_no_extractor_is_refused_at_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops_core.plugins.PluginHost", lambda: PluginHost([Plugin()]))
    assert len(analyze._extractors(["colours"])) == 1
    with pytest.raises(LLMOpsError, match="'nothing' is of type object"):
        analyze._extractors(["nothing"])
