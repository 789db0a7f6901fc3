"""Loading plugins: what is refused at set-up, what the error says, and what stays unimported."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmops_core.errors import PluginError, UnknownPart, UnknownStorage
from llmops_core.hookspecs import hookimpl
from llmops_core.plugins import PluginHost, Registry, installed_plugins, plugin_name


class Plugin:
    """Registers one exporter named ``mine``; the factory returns the text it was given."""

    name = "mine"

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        registry.exporter("mine", lambda argument: ("made", argument))


def refusal(plugin: object) -> str:
    with pytest.raises(PluginError) as caught:
        PluginHost([plugin])
    return str(caught.value)


def test_a_plugin_object_registers_a_part_without_packaging() -> None:
    host = PluginHost([Plugin()])
    assert host.part("exporter", "mine:./there") == ("made", "./there")
    assert host.part("exporter", "mine") == ("made", "")
    assert host.names == ["mine"]


def test_a_module_is_a_plugin() -> None:
    module = ModuleType("my_module")
    module.llmops_monitor_started = hookimpl(lambda monitor: None)  # type: ignore[attr-defined]
    assert PluginHost([module]).names == ["my_module"]


def test_a_misspelt_hook_is_refused_with_the_nearest_name() -> None:
    class Misspelt:
        @hookimpl
        def llmops_span_stored(self, batch: Any) -> None: ...

    said = refusal(Misspelt())
    assert "'llmops_span_stored'" in said
    assert "Did you mean 'llmops_spans_stored'?" in said


def test_a_hook_with_a_wrong_argument_is_refused() -> None:
    class Wrong:
        @hookimpl
        def llmops_spans_stored(self, spans: Any) -> None: ...

    said = refusal(Wrong())
    assert "'Wrong'" in said
    assert "spans" in said


def test_an_async_hook_is_refused() -> None:
    class Asynchronous:
        @hookimpl
        async def llmops_spans_stored(self, batch: Any) -> None: ...

    said = refusal(Asynchronous())
    assert "'async def'" in said
    assert "Expected a plain function" in said


def test_an_unmarked_hook_is_refused() -> None:
    class Unmarked:
        def llmops_spans_stored(self, batch: Any) -> None: ...

    assert "Expected the decorator @llmops_core.hookimpl" in refusal(Unmarked())


def test_a_class_instead_of_an_object_is_refused() -> None:
    class Forgotten:
        @hookimpl
        def llmops_monitor_started(self, monitor: Any) -> None: ...

    assert "Write Forgotten() instead of Forgotten" in refusal(Forgotten)


def test_a_named_class_is_refused_with_the_name_of_the_class() -> None:
    assert "Write Plugin() instead of Plugin" in refusal(Plugin)


def test_an_object_without_hooks_is_refused() -> None:
    assert "implements no hook" in refusal(SimpleNamespace(name="empty"))


def test_the_same_plugin_twice_is_refused() -> None:
    plugin = Plugin()
    with pytest.raises(PluginError, match="'mine' is given twice"):
        PluginHost([plugin, plugin])


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(PluginError, match="'mine' is given twice"):
        PluginHost([Plugin(), Plugin()])


def test_one_part_from_two_plugins_is_refused_and_both_are_named() -> None:
    class Other(Plugin):
        name = "other"

    with pytest.raises(PluginError, match="Exporter 'mine' is registered twice") as caught:
        PluginHost([Plugin(), Other()])
    assert "by 'mine' and by 'other'" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a:b", 7])
def test_a_part_needs_a_name_without_a_colon(name: Any) -> None:
    class Wrong:
        @hookimpl
        def llmops_register(self, registry: Registry) -> None:
            registry.collector(name, lambda argument: None)

    assert "non-empty text without a colon" in refusal(Wrong())


def test_a_part_needs_a_factory() -> None:
    class Wrong:
        @hookimpl
        def llmops_register(self, registry: Registry) -> None:
            registry.collector("words", object())  # type: ignore[arg-type]

    assert "a function that takes one text" in refusal(Wrong())


def test_a_failing_register_names_the_plugin_and_the_cause() -> None:
    class Failing:
        name = "failing"

        @hookimpl
        def llmops_register(self, registry: Registry) -> None:
            raise OSError("no such device")

    with pytest.raises(PluginError) as caught:
        PluginHost([Failing()])
    assert "'failing' failed in llmops_register: OSError: no such device" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_failing_factory_names_the_part_and_the_cause() -> None:
    class Failing:
        @hookimpl
        def llmops_register(self, registry: Registry) -> None:
            registry.storage("broken", lambda url: 1 / 0)

    host = PluginHost([Failing()])
    with pytest.raises(PluginError, match="Storage 'broken' could not be made: ZeroDivisionError"):
        host.storage("broken:")


def test_an_unknown_scheme_lists_what_is_known_and_the_nearest() -> None:
    with pytest.raises(UnknownStorage) as caught:
        PluginHost().storage("parqet:./data")
    said = str(caught.value)
    assert "'parqet:./data'" in said
    assert "parquet" in said.partition("Registered:")[2]
    assert "Did you mean 'parquet'?" in said


def test_an_unknown_scheme_without_a_near_name_says_what_to_do() -> None:
    with pytest.raises(UnknownStorage, match="install a plugin that registers 'cassandra'"):
        PluginHost().storage("cassandra://localhost")


def test_the_password_of_a_url_is_not_repeated() -> None:
    with pytest.raises(UnknownStorage) as caught:
        PluginHost().storage("oracle://scott:tiger@host/db")
    assert "tiger" not in str(caught.value)
    assert "oracle://scott:***@host/db" in str(caught.value)


@pytest.mark.parametrize("url", ["", "./llmops_data", ":memory"])
def test_a_storage_needs_a_scheme(url: str) -> None:
    with pytest.raises(UnknownStorage, match="has no scheme"):
        PluginHost().storage(url)


def test_an_unknown_part_lists_what_is_known_and_the_nearest() -> None:
    with pytest.raises(UnknownPart, match=re.escape("Did you mean 'console'?")) as caught:
        PluginHost().part("exporter", "consol")
    assert "jsonl" in str(caught.value)


def test_a_name_that_no_installed_plugin_has_is_refused() -> None:
    with pytest.raises(PluginError, match="No plugin named 'lnes' is installed"):
        PluginHost(["lnes"])


def test_a_plugin_is_named_by_itself_its_module_or_its_class() -> None:
    assert plugin_name(Plugin()) == "mine"
    assert plugin_name(ModuleType("a.module")) == "a.module"
    assert plugin_name(object()) == "object"


def install(site: Path, name: str, code: str) -> None:
    """Lay an installed distribution into a folder of ``sys.path``."""
    (site / f"{name}_plugin.py").write_text(code)
    info = site / f"llmops_{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llmops-{name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[llmops]\n{name} = {name}_plugin\n")


GOOD = """
from llmops_core.hookspecs import hookimpl

@hookimpl
def llmops_register(registry):
    registry.exporter("{name}", lambda argument: ("installed", argument))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("quiet_plugin", "loud_plugin"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_installed_is_listed_with_its_version_and_not_imported(site: Path) -> None:
    install(site, "loud", "raise SystemExit('imported without being named')")
    install(site, "quiet", GOOD.format(name="quiet"))
    assert installed_plugins()["loud"] == "llmops-loud 1.2"
    host = PluginHost([Plugin()])
    assert host.part("exporter", "quiet:x") == ("installed", "x")
    with pytest.raises(UnknownPart) as caught:
        host.part("exporter", "loudd")
    assert "Did you mean 'loud'?" in str(caught.value)
    assert "loud_plugin" not in sys.modules
    assert host.names == ["mine", "quiet"]


def test_naming_an_entry_point_as_a_plugin_loads_it(site: Path) -> None:
    install(site, "quiet", GOOD.format(name="quiet"))
    host = PluginHost(["quiet"])
    assert "quiet_plugin" in sys.modules
    assert host.registry.names("exporter") == ["quiet"]


def test_an_entry_point_that_cannot_be_imported_is_named(site: Path) -> None:
    install(site, "loud", "import a_package_nobody_has")
    with pytest.raises(PluginError, match=r"'loud' \(loud_plugin\) cannot be imported: ModuleNot"):
        PluginHost().part("exporter", "loud")


def test_an_entry_point_that_registers_something_else_leaves_the_name_unknown(site: Path) -> None:
    install(site, "quiet", GOOD.format(name="another"))
    host = PluginHost()
    for _ in range(2):
        with pytest.raises(UnknownPart, match="exporter 'quiet'"):
            host.part("exporter", "quiet")
    assert host.part("exporter", "another") == ("installed", "")
