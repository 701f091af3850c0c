"""Who gets in, who does not, and how everybody leaves."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from services.common.config.smtp import Limits
from services.common.mail.reply import SHUTTING_DOWN, TOO_MANY_CONNECTIONS
from services.ingress.gate import Gate
from services.ingress.suspicion import Suspicion


class _Visitor:
    listener_name = "mx"

    def __init__(
        self, address: str = "192.0.2.1", *, stubborn: bool = False, is_server: bool = True
    ) -> None:
        self.address = ip_address(address)
        self.is_server = is_server
        self.stubborn = stubborn
        self.gate: Gate | None = None
        self.aborted = False

    def drain(self) -> None:
        if self.gate is not None and not self.stubborn:
            self.gate.leave(self, "drained")

    def abort(self) -> None:
        self.aborted = True


_LIMITS = Limits(connections=3, connections_per_address=2)


def test_limits_in_all_and_per_address() -> None:
    gate = Gate(Suspicion())
    first, second, third = _Visitor(), _Visitor(), _Visitor()
    assert gate.enter(first, _LIMITS) is None
    assert gate.enter(second, _LIMITS) is None
    assert gate.enter(third, _LIMITS) == TOO_MANY_CONNECTIONS
    gate.leave(third, "excess")
    assert gate.enter(_Visitor("192.0.2.2"), _LIMITS) is None
    assert gate.enter(_Visitor("192.0.2.3"), _LIMITS) == TOO_MANY_CONNECTIONS
    gate.leave(first, "quit")
    gate.leave(second, "quit")
    assert gate.enter(_Visitor(), _LIMITS) is None


@pytest.mark.parametrize("is_server", [True, False], ids=["servers", "people"])
def test_a_tenth_of_all_places_is_kept_for_the_other_role(is_server: bool) -> None:
    gate = Gate(Suspicion())
    limits = Limits(connections=20)

    def comes(number: int, *, is_server: bool) -> _Visitor | None:
        visitor = _Visitor(f"192.0.2.{number}", is_server=is_server)
        if gate.enter(visitor, limits) is None:
            return visitor
        gate.leave(visitor, "excess")
        return None

    many = [comes(number, is_server=is_server) for number in range(30)]
    inside = [visitor for visitor in many if visitor is not None]
    assert len(inside) == 18
    others = [comes(100 + number, is_server=not is_server) for number in range(3)]
    assert [visitor is not None for visitor in others] == [True, True, False]
    for visitor in inside[:2]:
        gate.leave(visitor, "quit")
    assert comes(110, is_server=is_server) is not None


@pytest.mark.parametrize(
    ("other", "same"),
    [("2001:db8::2", True), ("2001:db8:0:0:f::", True), ("2001:db8:0:1::1", False)],
)
def test_an_ipv6_network_is_one_client(other: str, same: bool) -> None:
    gate = Gate(Suspicion())
    for _ in range(2):
        assert gate.enter(_Visitor("2001:db8::1"), Limits(connections_per_address=2)) is None
    refusal = gate.enter(_Visitor(other), Limits(connections_per_address=2))
    assert (refusal is not None) is same


async def test_draining_waits_for_mail_in_hand_and_refuses_others() -> None:
    gate = Gate(Suspicion())
    idle, busy = _Visitor(), _Visitor(stubborn=True)
    for visitor in (idle, busy):
        visitor.gate = gate
        assert gate.enter(visitor, Limits()) is None
    draining = asyncio.create_task(gate.drain(patience_s=60))
    await asyncio.sleep(0)
    assert gate.is_draining
    assert not draining.done()
    late = _Visitor()
    assert gate.enter(late, Limits()) == SHUTTING_DOWN
    gate.leave(late, "excess")
    gate.leave(busy, "quit")
    await draining
    assert not busy.aborted


async def test_who_does_not_go_is_put_out() -> None:
    gate = Gate(Suspicion())
    visitor = _Visitor(stubborn=True)
    assert gate.enter(visitor, Limits()) is None
    await gate.drain(patience_s=0)
    assert visitor.aborted
