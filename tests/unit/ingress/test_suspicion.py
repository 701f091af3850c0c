"""Lost client addresses: noticed, said once in a while, and not seen where they are not."""

from ipaddress import ip_address

import pytest

from services.ingress.suspicion import WARN_AGAIN_S, WINDOW, Suspicion
from tests.support.clock import FakeClock

_STRANGER, _NODE = ip_address("8.8.4.4"), ip_address("10.1.2.3")


def _noted(suspicion: Suspicion, *addresses: object) -> float:
    for address in addresses:
        suspicion.note(address)  # type: ignore[arg-type]
    return suspicion.ratio


def test_the_ratio_is_of_the_last_connections() -> None:
    suspicion = Suspicion()
    assert suspicion.ratio == 0.0
    assert _noted(suspicion, _STRANGER, _NODE) == 0.5
    assert _noted(suspicion, *[_STRANGER] * WINDOW) == 0.0
    assert _noted(suspicion, *[_NODE] * (WINDOW // 4)) == 0.25


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.1.1", "100.64.0.1", "169.254.1.1", "fd00::1"]
)
def test_private_addresses_are_suspect(address: str) -> None:
    assert _noted(Suspicion(), ip_address(address)) == 1.0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "8.8.4.4", "2a00::1"])
def test_others_are_not(address: str) -> None:
    assert _noted(Suspicion(), ip_address(address)) == 0.0


def test_a_stranger_among_them_keeps_it_silent() -> None:
    _noted(Suspicion(), _STRANGER, *[_NODE] * (WINDOW - 1))


@pytest.mark.expect_warnings("client addresses seem to be lost")
def test_it_is_said_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    suspicion = Suspicion(clock)
    _noted(suspicion, *[_NODE] * (3 * WINDOW))
    assert len(caplog.records) == 1
    clock.advance(WARN_AGAIN_S)
    _noted(suspicion, _NODE)
    assert len(caplog.records) == 2
