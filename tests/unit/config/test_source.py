"""A changed file is put in place as a whole, a wrong one not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.common.config.loader import ConfigError
from services.common.config.model import Config
from services.common.config.source import ConfigSource


def test_a_changed_file_is_applied_and_told(tmp_path: Path) -> None:
    path = tmp_path / "gatepost.yaml"
    path.write_text("smtp: {require_tls: false}", encoding="utf-8")
    source = ConfigSource(path)
    heard: list[Config] = []
    source.subscribe(heard.append)
    source.refresh()
    assert heard == []
    path.write_text("smtp: {require_tls: true}", encoding="utf-8")
    source.refresh()
    assert source.current.smtp.require_tls is True
    assert heard == [source.current]


def test_a_wrong_file_changes_nothing_and_raises_the_metric(
    tmp_path: Path, expected_log: Callable[[str], None]
) -> None:
    path = tmp_path / "gatepost.yaml"
    path.write_text("smtp: {require_tls: true}", encoding="utf-8")
    source = ConfigSource(path)
    expected_log("line 1: smtp.require_tls: must be true or false")
    path.write_text("smtp: {require_tls: perhaps}", encoding="utf-8")
    source.refresh()
    assert source.current.smtp.require_tls is True
    assert REGISTRY.get_sample_value("gatepost_config_valid") == 0
    path.write_text("smtp: {require_tls: false}", encoding="utf-8")
    source.refresh()
    assert source.current.smtp.require_tls is False
    assert REGISTRY.get_sample_value("gatepost_config_valid") == 1


def test_a_file_that_vanishes_keeps_the_old_configuration(
    tmp_path: Path, expected_log: Callable[[str], None]
) -> None:
    path = tmp_path / "gatepost.yaml"
    path.write_text("smtp: {require_tls: true}", encoding="utf-8")
    source = ConfigSource(path)
    expected_log("cannot be read: No such file or directory")
    path.unlink()
    source.refresh()
    assert source.current.smtp.require_tls is True


def test_an_atomic_swap_of_a_symbolic_link_is_seen(tmp_path: Path) -> None:
    for version, value in (("v1", "false"), ("v2", "true")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "gatepost.yaml").write_text(f"smtp: {{require_tls: {value}}}")
    (tmp_path / "now").symlink_to("v1")
    source = ConfigSource(tmp_path / "now" / "gatepost.yaml")
    (tmp_path / "next").symlink_to("v2")
    os.replace(tmp_path / "next", tmp_path / "now")
    source.refresh()
    assert source.current.smtp.require_tls is True


def test_what_needs_a_restart_says_so(tmp_path: Path, expected_log: Callable[[str], None]) -> None:
    path = tmp_path / "gatepost.yaml"
    path.write_text("services: {ingress: {http: '127.0.0.1:9101'}}", encoding="utf-8")
    source = ConfigSource(path)
    expected_log("services changed: this takes effect after a restart")
    path.write_text("services: {ingress: {http: '127.0.0.1:9999'}}", encoding="utf-8")
    source.refresh()


def test_one_subscriber_that_fails_does_not_stop_the_others(
    tmp_path: Path, expected_log: Callable[[str], None]
) -> None:
    path = tmp_path / "gatepost.yaml"
    path.write_text("", encoding="utf-8")
    source = ConfigSource(path)
    heard: list[Config] = []

    def fail(_: Config) -> None:
        raise RuntimeError("no")

    source.subscribe(fail)
    source.subscribe(heard.append)
    expected_log("could not take the changed configuration")
    path.write_text("smtp: {require_tls: true}", encoding="utf-8")
    source.refresh()
    assert len(heard) == 1


def test_the_first_load_must_succeed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ConfigSource(tmp_path / "missing.yaml")
