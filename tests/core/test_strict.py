"""A set-up that cannot work, where the program said that it goes on without monitoring."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmops_core import (
    ConfigError,
    LLMOpsError,
    Monitor,
    MonitorConfig,
    StorageError,
    default_monitor,
    initialize_monitoring_sync,
    monitor_llm,
    shutdown,
)

BAD = {"overload": "wait"}


def record(monitor: Monitor) -> None:
    monitor.recorder.start(
        1, None, {"kind": "tool", "name": "t", "input": monitor.recorder.freeze("x")}
    )
    monitor.recorder.end(1, None, {"outcome": "ok"})


def test_it_says_so_once_and_takes_everything_and_records_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = Monitor("memory:", strict=False, **BAD)
    record(monitor)
    assert monitor.flush(1).complete
    stats = monitor.stats()
    assert stats["off"] == str(
        ConfigError("overload='wait'", "expected one of drop, block", "write overload='drop'")
    )
    assert stats["events"] == {
        "received": 2, "consumed": 0, "queued": 0, "dropped": {"off": 2}, "content_shed": 0,
        "blocked": {"calls": 0, "ms": 0.0},
    }  # fmt: skip
    with pytest.raises(StorageError, match="overload='wait'"):
        monitor.query()
    assert repr(monitor) == "<Monitor off: off>"
    assert not monitor.closed
    assert monitor.close().complete
    assert monitor.closed
    assert caplog.messages == [f"nothing is monitored: {stats['off']}"]


def test_a_set_up_that_works_is_as_ever() -> None:
    with Monitor("memory:", strict=False) as monitor:
        record(monitor)
        assert monitor.flush(10).complete
        assert monitor.query().num_rows == 1
        assert monitor.stats()["off"] is None


@pytest.mark.parametrize("text", ["false", "0", "False"])
def test_the_environment_may_say_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_STRICT", text)
    assert Monitor("nosuch://x").stats()["off"]
    with pytest.raises(LLMOpsError):
        Monitor("nosuch://x", strict=True)


def test_the_file_may_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llmops.toml").write_text('strict = false\noverload = "wait"\n')
    assert "llmops.toml" in str(Monitor("memory:").stats()["off"])
    Path("llmops.toml").write_text('strict = false\nnosuch = "wait"\n')
    assert "nosuch" in str(Monitor("memory:").stats()["off"])
    Path("llmops.toml").write_text("strict = false\nnosuch = wait\n")
    with pytest.raises(ConfigError, match="not TOML"):  # a file that is not understood says nothing
        Monitor("memory:")


def test_a_file_that_may_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llmops.toml").touch()

    def denied(self: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(ConfigError, match=r"llmops\.toml cannot be read: Permission denied"):
        Monitor("memory:")
    Path("llmops.toml").rename("pyproject.toml")
    Monitor("memory:").close()  # not ours to judge


@pytest.mark.parametrize("value", ["false", 0, None])
def test_what_is_no_truth_value_is_an_error(value: object) -> None:
    with pytest.raises(ConfigError, match="strict="):
        Monitor("memory:", strict=value)


def test_a_configuration_says_it_too() -> None:
    monitor = MonitorConfig(strict=False, overload="block", plugins=["nosuch"]).open()
    assert "nosuch" in str(monitor.stats()["off"])


def test_the_default_monitor_stays_off_and_calls_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_STRICT", "false")
    monkeypatch.setenv("LLMOPS_STORAGE_URL", "nosuch://x")
    monitor = initialize_monitoring_sync()
    try:
        assert monitor_llm(lambda: 5)() == 5
        assert default_monitor() is monitor
        assert monitor.stats()["events"]["dropped"]["off"] >= 2
        assert len(caplog.messages) == 1
    finally:
        shutdown()


def test_a_forked_child_stays_off() -> None:
    monitor = Monitor("memory:", strict=False, **BAD)
    pid = os.fork()
    if pid == 0:
        record(monitor)
        fine = monitor.flush(1).complete and monitor.stats()["events"]["dropped"] == {"off": 2}
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_interrupt_at_set_up_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmops_core.monitor.make_settings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Monitor("memory:", strict=False)
