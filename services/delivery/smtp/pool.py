"""Open sessions kept for the next mail to the same next hop (RFC 5321 §4.1.1.5: several mails).

Guarantees: a session is handed to one user at a time, only to where it leads, and never one that
has said something in the meantime; at most `MAX_IDLE` are kept, each for `IDLE_S` seconds and
`MAX_MAILS` mails, so that nobody's connections are occupied for long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from prometheus_client import Gauge

from services.delivery.smtp.session import Peer, Session

IDLE_S: Final = 5.0
MAX_IDLE: Final = 200
MAX_MAILS: Final = 100

IDLE = Gauge("gatepost_delivery_sessions_idle", "Open sessions with next hops that wait for mail.")


@dataclass(slots=True, eq=False)
class _Kept:
    session: Session
    expiry: asyncio.TimerHandle | None = None


class SessionPool:
    """The open sessions of a process that nobody uses."""

    def __init__(self) -> None:
        self._kept: dict[Peer, list[_Kept]] = {}
        self._count = 0
        self._quitting: set[asyncio.Task[None]] = set()

    def take(self, peer: Peer) -> Session | None:
        """An open session with this very peer, if there is one."""
        while kept := self._kept.get(peer):
            session = kept[-1].session
            self._drop(kept[-1])
            if not session.connection.has_input:
                return session
            session.abort()
        return None

    def give(self, session: Session) -> None:
        """Keep a session, or end it if it has served or there are too many."""
        if session.mails >= MAX_MAILS or self._count >= MAX_IDLE or session.connection.has_input:
            self._quit(session)
            return
        loop = asyncio.get_running_loop()
        kept = _Kept(session)
        kept.expiry = loop.call_later(IDLE_S, self._expire, kept)
        self._kept.setdefault(session.peer, []).append(kept)
        self._count += 1
        IDLE.inc()

    async def close(self) -> None:
        """End all sessions in order."""
        for kept in [each for sessions in self._kept.values() for each in sessions]:
            self._expire(kept)
        if self._quitting:
            await asyncio.wait(self._quitting)

    def _expire(self, kept: _Kept) -> None:
        self._drop(kept)
        self._quit(kept.session)

    def _drop(self, kept: _Kept) -> None:
        if kept.expiry is not None:
            kept.expiry.cancel()
        sessions = self._kept[kept.session.peer]
        sessions.remove(kept)
        if not sessions:
            del self._kept[kept.session.peer]
        self._count -= 1
        IDLE.dec()

    def _quit(self, session: Session) -> None:
        task = asyncio.get_running_loop().create_task(session.quit(), name="quit")
        self._quitting.add(task)
        task.add_done_callback(self._quitting.discard)
