"""Unit tests touch no network, do not sleep, and log no warning that they do not announce."""

import socket
import time
from typing import NoReturn

import pytest

from tests.support.log_guard import LogGuard


@pytest.fixture(autouse=True)
def _no_unexpected_warning(log_guard: LogGuard) -> None:
    """Every unit test is guarded."""


@pytest.fixture(autouse=True)
def _no_network_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bind", "connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _refuse)
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
    monkeypatch.setattr(time, "sleep", _refuse)


def _refuse(*_: object, **__: object) -> NoReturn:
    pytest.fail("a unit test uses the network or sleeps; that is for tests/integration")
