"""What the ingress says of its clients' addresses, kept for people who ask how things are.

Whether addresses are lost on their way can only be told where the connections are; each question of
the ingress carries what it holds. The last word about each listener is remembered, by this replica
alone, until the process ends.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from gatepost.policy.v1 import policy_pb2 as pb

MAX_LISTENERS = 100
"""More than anybody configures; questions come from the ingress, which names its own."""

ADVICE = (
    "The last 100 connections from mail servers came from private addresses: a load balancer or"
    " the cluster hides who is connected, and SPF and HELO checks mean nothing. Set"
    " externalTrafficPolicy: Local, or use the PROXY protocol (smtp.listeners, proxy_protocol)."
)


class _Word(NamedTuple):
    """What was said of a listener, and when."""

    lost: bool
    address: str
    time: datetime


class ClientAddresses:
    """The last word about each listener."""

    def __init__(self) -> None:
        self._listeners: dict[str, _Word] = {}

    def note(self, session: pb.Session, now: datetime) -> None:
        """The ingress asks about a mail of this session."""
        name = session.listener
        if name in self._listeners or len(self._listeners) < MAX_LISTENERS:
            said = _Word(session.client_addresses_lost, session.client_address, now)
            self._listeners[name] = said

    def status(self) -> pb.GetStatusResponse:
        """The answer to who asks."""
        listeners = [_status(name, word) for name, word in sorted(self._listeners.items())]
        lost = any(each.client_addresses_lost for each in listeners)
        return pb.GetStatusResponse(
            client_addresses_lost=lost, advice=ADVICE if lost else "", listeners=listeners
        )


def _status(listener: str, word: _Word) -> pb.ListenerStatus:
    status = pb.ListenerStatus(
        listener=listener, client_addresses_lost=word.lost, last_client_address=word.address
    )
    status.observe_time.FromDatetime(word.time)
    return status
