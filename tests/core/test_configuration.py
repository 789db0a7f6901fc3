"""Configuration: code, then environment, then a file; errors name their source, secrets stay hidden."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops_core import (
    ConfigError,
    DatadogConfig,
    LLMOpsError,
    Monitor,
    MonitorConfig,
    PrometheusConfig,
    StorageConfig,
    UnknownPart,
    WebSocketConfig,
    default,
    holding,
    initialize_monitoring_sync,
    shutdown,
    sources,
)
from llmops_core.cli import main
from llmops_core.config import Settings, make_settings, storage_url

SECRET = "hunter2-hunter2"
DSN = f"postgresql://ann:{SECRET}@db.invalid/spans"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, without a variable of ours but the state folder."""
    monkeypatch.chdir(tmp_path)
    for name in sources.variables():
        if name != "LLMOPS_STATE_DIR":
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(holding, "_default", holding._Default())
    monkeypatch.setattr(default, "_default", None)
    yield
    shutdown()


# ---- precedence ----


def test_code_comes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llmops.toml").write_text("batch_size = 1\nopen_spans = 2\nproject = 'file'\n")
    monkeypatch.setenv("LLMOPS_BATCH_SIZE", "3")
    monkeypatch.setenv("LLMOPS_OPEN_SPANS", "4")
    settings, told = sources.resolve_settings({"batch_size": 5})
    assert (settings.batch_size, settings.open_spans, settings.project) == (5, 4, "file")
    assert (told["batch_size"], told["open_spans"]) == ("code", "LLMOPS_OPEN_SPANS")
    assert (told["project"], told["trace_spans"]) == ("llmops.toml [project]", "default")


def test_a_monitor_and_a_configuration_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.llmops]\nproject = "p"\n[tool.other]\nx = 1\n')
    monkeypatch.setenv("LLMOPS_FLUSH_INTERVAL_SECONDS", "2.5")
    config = MonitorConfig(batch_size=7)
    assert (config.project, config.flush_interval_seconds, config.batch_size) == ("p", 2.5, 7)
    with Monitor(storage="memory:", batch_size=7) as direct:
        opened = MonitorConfig(batch_size=7, storage=StorageConfig(backend="memory")).open()
        assert opened.settings == direct.settings
        opened.close()


def test_the_file_may_be_named_and_holds_storage_parts_and_extensions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "other.toml"
    named.write_text(
        'exporters = ["jsonl:./out.jsonl"]\n'
        '[storage]\nbackend = "parquet"\noutput_dir = "./mine"\nbatch_size = 9\n'
        "[extensions.mine]\nenabled = false\n"
    )
    monkeypatch.setenv("LLMOPS_CONFIG", str(named))
    assert storage_url() == "parquet:./mine"
    assert make_settings({}).batch_size == 9
    with Monitor() as opened:
        assert list(opened.stats()["exporters"]) == ["jsonl"]
    assert (tmp_path / "mine").is_dir()
    assert MonitorConfig().extensions == {"mine": {"enabled": False}}


def test_every_setting_has_a_variable_and_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.__struct_fields__:
        assert f"LLMOPS_{name.upper()}" in sources.variables()
        assert name in MonitorConfig.model_fields
    monkeypatch.setenv("LLMOPS_PROJECT", "null")
    assert make_settings({}).project == "null"  # a text stays the text


# ---- the storage ----


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "parquet:./llmops_data"),
        ({"STORAGE_URL": "memory:"}, "memory:"),
        ({"BACKEND": "parquet", "OUTPUT_DIR": "./x"}, "parquet:./x"),
        ({"BACKEND": "postgres", "CONNECTION_STRING": DSN}, DSN),
        ({"CONNECTION_STRING": DSN}, DSN),
        ({"BACKEND": "mysql", "CONNECTION_STRING": "mysql://h/d", "TABLE_NAME": "t"},
         "mysql://h/d?table=t"),
        ({"STORAGE_URL": DSN, "BACKEND": "postgres", "CONNECTION_STRING": DSN}, DSN),
    ],
)  # fmt: skip
def test_the_historic_variables_name_a_storage_too(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"LLMOPS_{name}", value)
    assert storage_url() == url


@pytest.mark.parametrize(
    "environment",
    [
        {"STORAGE_URL": "memory:", "BACKEND": "postgres"},
        {"STORAGE_URL": "postgresql://other/db", "CONNECTION_STRING": DSN},
        {"BATCH_SIZE": "x"},
        {"BACKEND": "postgres"},
        {"BACKEND": "parquet", "PARTITION_BY": "session_id"},
        {"MAX_QUEUE_SIZE": "5", "QUEUE_EVENTS": "6"},
        {"FLUSH_INTERVAL_SECONDS": "0"},
        {"EXPORTERS": "consol"},
        {"CONFIG": "/nowhere/at/all.toml"},
    ],
)
def test_a_bad_or_contradicting_variable_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"LLMOPS_{name}", value)
    with pytest.raises(ConfigError) as caught:
        Monitor().close()
    told = str(caught.value)
    assert all(name in told or name.lower() in told for name in environment if name != "BACKEND")
    assert "LLMOPS_" in told
    assert SECRET not in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("batch_sise = 1", "did you mean 'batch_size'"),
        ("batch_size = 'x'", "llmops.toml [batch_size]"),
        ("exporters = 'console'", "expected a list of names"),
        ("exporters = ['otpl']", "llmops.toml [exporters]"),
        ("[storage]\nbakend = 'x'", "'bakend'"),
        ("storage = 3", "llmops.toml [storage]"),
        ("= 3", "llmops.toml is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_the_file(
    tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "llmops.toml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        Monitor().close()
    assert told.lower() in str(caught.value).lower()
    assert "llmops.toml" in str(caught.value)


def test_an_unreadable_project_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("= broken")
    assert make_settings({}) == Settings()


# ---- the objects ----


def test_the_published_objects_resolve_to_the_settings() -> None:
    config = MonitorConfig(
        storage=StorageConfig(
            backend="parquet", output_dir="./my_data", batch_size=500, flush_interval_seconds=10.0
        ),
        max_queue_size=50_000,
    )
    assert config.monitor_arguments() == {
        "storage": "parquet:./my_data",
        "batch_size": 500,
        "flush_interval_seconds": 10.0,
        "queue_events": 50_000,
    }
    local = MonitorConfig.for_local_dev().monitor_arguments()
    assert (local["storage"], local["batch_size"]) == ("parquet:./dev_monitoring_data", 10)
    production = MonitorConfig.for_production(DSN, service="web").monitor_arguments()
    assert (production["storage"], production["service"]) == (DSN, "web")


@pytest.mark.parametrize(
    ("backend", "options", "url"),
    [
        ("postgres", {"table_name": "metric_events", "pool_size": 20},
         f"{DSN}?table=metric_events&pool_size=20"),
        ("clickhouse", {"schema_name": "monitoring"}, f"{DSN}?schema=monitoring"),
        ("memory", {}, "memory:"),
    ],
)  # fmt: skip
def test_the_storage_object_is_a_url(backend: str, options: dict[str, Any], url: str) -> None:
    made = StorageConfig(backend=backend, connection_string=DSN, **options)  # type: ignore[arg-type]
    assert made.to_url() == url


def test_values_that_disagree_in_code_are_an_error() -> None:
    config = MonitorConfig(batch_size=1, storage=StorageConfig(batch_size=2))
    with pytest.raises(ConfigError, match="disagree"):
        config.monitor_arguments()


def test_the_environment_is_overruled_by_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_BATCH_SIZE", "3")
    config = MonitorConfig(storage=StorageConfig(backend="memory", batch_size=2))
    opened = initialize_monitoring_sync(config)
    assert opened.settings.batch_size == 2


def test_unknown_names_and_wrong_types_say_what_was_expected() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'output_dir'|Did you mean 'output_dir'"):
        StorageConfig(output_dirr="x")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="MonitorConfig has no 'batchsize'"):
        MonitorConfig(batchsize=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="port"):
        PrometheusConfig(port=99_999)
    with pytest.raises(ConfigError, match="queue_events"):
        MonitorConfig(max_queue_size=0, storage=StorageConfig(backend="memory")).open()


def test_extensions_are_data_and_one_that_is_enabled_says_that_it_is_not_there() -> None:
    config = MonitorConfig(storage=StorageConfig(backend="memory"))
    config.extensions["websocket"] = WebSocketConfig().model_dump()
    config.open().close()
    config.extensions["prometheus"] = PrometheusConfig(enabled=True, port=8000).model_dump()
    with pytest.raises(ConfigError, match=r"'prometheus'\] is enabled.*no such part"):
        initialize_monitoring_sync(config)


def test_no_secret_is_printed() -> None:
    config = MonitorConfig.for_production(DSN)
    config.extensions["datadog"] = DatadogConfig(api_key=SECRET, app_key=SECRET).model_dump()  # type: ignore[arg-type]
    shown = [repr(config), str(config), repr(config.model_dump()), config.model_dump_json()]
    shown += [repr(config.storage), f"{config.storage}"]
    assert not [text for text in shown if SECRET in text]
    with pytest.raises(LLMOpsError) as caught:
        config.open()  # there is no such host, or no driver: the error shows the URL without it
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        StorageConfig(connection_string=[SECRET])  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("wrong", ["memory:", MonitorConfig, {"storage": "memory:"}])
def test_a_start_with_something_else_says_what_it_takes(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="MonitorConfig or an open Monitor"):
        initialize_monitoring_sync(wrong)


def test_an_unknown_part_of_the_code_names_no_file(tmp_path: Path) -> None:
    (tmp_path / "llmops.toml").write_text("exporters = ['console']")
    with pytest.raises(UnknownPart) as caught:
        Monitor(storage="memory:", exporters=["otpl"])
    assert "llmops.toml" not in str(caught.value)


# ---- doctor, imports ----


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with contextlib.suppress(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["llmops", "doctor", "--without", "hooks", *options])
        main()
    return capsys.readouterr().out


def test_doctor_tells_where_each_setting_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "llmops.toml").write_text("project = 'shop'")
    monkeypatch.setenv("LLMOPS_BATCH_SIZE", "3")
    monkeypatch.setenv("LLMOPS_BATCHSIZE", "3")
    report = json.loads(doctor(capsys, "--json"))
    assert report["settings"]["batch_size"] == {"value": 3, "source": "LLMOPS_BATCH_SIZE"}
    assert report["settings"]["project"]["source"] == "llmops.toml [project]"
    assert report["environment"]["LLMOPS_BATCHSIZE"]["read"] is False
    assert "(from LLMOPS_BATCH_SIZE)" in doctor(capsys)
    monkeypatch.setenv("LLMOPS_BATCH_SIZE", "none")
    assert "LLMOPS_BATCH_SIZE='none'" in doctor(capsys)


def test_pydantic_is_imported_with_the_first_configuration_object_only() -> None:
    code = (
        "import sys, llmops_core\n"
        "assert not {'pydantic', 'pydantic_settings'} & set(sys.modules)\n"
        "llmops_core.MonitorConfig\n"
        "assert 'pydantic_settings' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---- where a secret may hide ----


def test_secrets_of_extensions_are_hidden_however_they_are_given() -> None:
    raw = {"api_key": SECRET, "nested": {"token": SECRET}, "url": DSN, "enabled": False}
    config = MonitorConfig(extensions={"datadog": raw})
    config.extensions["other"] = {"password": SECRET, "hosts": [DSN]}
    assert SECRET not in repr(config) + str(config) + config.model_dump_json()
    assert config.extensions["datadog"]["api_key"] == SECRET  # what a part reads


@pytest.mark.parametrize(
    "url",
    [
        f"nosuch://ann:{SECRET}@db/spans",
        f"nosuch://db/spans?sslmode=on&password={SECRET}&x=1",
        f"nosuch://db/spans?api_key={SECRET}",
        f"nosuch://ann:?{SECRET}@db/spans",
        f"postgresqls:ann:{SECRET}",
    ],
)
def test_no_error_about_a_storage_shows_its_secret(url: str) -> None:
    with pytest.raises(LLMOpsError) as told:
        Monitor(storage=url.replace("postgresqls", "postgres"))
    assert SECRET not in str(told.value)


# ---- who said it ----


@pytest.mark.parametrize("line", ["batch_size = 'x'", "durability = 'disk'"])
def test_a_bad_value_of_the_file_names_the_file_however_it_is_read(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "llmops.toml").write_text(line)
    for read in (MonitorConfig, lambda: sources.resolve_settings({})):
        with pytest.raises(ConfigError, match=r"from llmops\.toml"):
            read()


def test_a_bad_choice_in_the_environment_names_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_OVERLOAD", "maybe")
    with pytest.raises(ConfigError, match=r"LLMOPS_OVERLOAD='maybe'.*one of drop, block"):
        sources.resolve_settings({})


def test_a_folder_for_each_session_is_refused_in_the_environment_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLMOPS_PARTITION_BY", "session_id")
    with pytest.raises(ConfigError, match="LLMOPS_PARTITION_BY"):
        storage_url()


def test_an_enabled_extension_of_the_file_is_no_silence(tmp_path: Path) -> None:
    (tmp_path / "llmops.toml").write_text("[extensions.prometheus]\nenabled = true\n")
    with pytest.raises(ConfigError, match=r"prometheus.*llmops\.toml"):
        sources.resolve_settings({})
