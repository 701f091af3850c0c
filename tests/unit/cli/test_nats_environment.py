"""The nats-server of `gatepost up` leaves processors to the services."""

import os

import pytest

from services.cli.up.nats_server import environment


@pytest.mark.parametrize(("processors", "given"), [(None, "1"), (1, "1"), (7, "1"), (8, "2")])
def test_a_quarter_of_the_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int | None, given: str
) -> None:
    monkeypatch.delenv("GOMAXPROCS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert environment() == {"GOMAXPROCS": given}


def test_what_the_user_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMAXPROCS", "3")
    assert environment() == {}
