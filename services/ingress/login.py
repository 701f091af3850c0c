"""AUTH in a session (RFC 4954): when it is allowed, who answers, what a failure costs.

Guarantees: no password leaves this module but to the directory; none is logged. "Cannot check"
(454) is never said as "wrong" (535). Each failure is answered later than the one before, and a
session gets only a few.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from prometheus_client import Counter

from services.common.log import INFO, event
from services.common.mail.address import AddressError, parse_mailbox
from services.common.mail.reply import BAD_ARGUMENTS, Reply
from services.ingress.extensions import offers_auth
from services.ingress.login_guard import LoginGuard
from services.ingress.policy import Policy, PolicyAway
from services.ingress.replies import (
    ALREADY_AUTHENTICATED,
    AUTH_BANNED,
    AUTH_MECHANISM_UNKNOWN,
    AUTH_NEEDS_TLS,
    AUTH_NOT_OFFERED,
    AUTH_UNAVAILABLE,
    AUTH_WRONG,
    AUTHENTICATED,
    HELO_FIRST,
    TOO_MANY_AUTH_FAILURES,
)
from services.ingress.sasl import MECHANISMS, Ask, Credentials, SaslError
from services.ingress.transaction import Session

_log = logging.getLogger(__name__)

MAX_FAILURES: Final = 3
"""In one session; the next one is answered 421."""

LOGINS = Counter(
    "gatepost_ingress_logins_total",
    "AUTH commands, by listener and result.",
    ["listener", "result"],  # accepted, wrong, unavailable, aborted, banned
)


class Login:
    """The logins of one session."""

    def __init__(self, session: Session, policy: Policy, guard: LoginGuard) -> None:
        self._session = session
        self._policy = policy
        self._guard = guard
        self._failures = 0

    async def auth(self, argument: str, ask: Ask) -> Reply:
        """The AUTH command. Not called within a transaction."""
        words = argument.split()
        obstacle = self._obstacle(words)
        if obstacle is not None:
            return obstacle
        if await self._guard.is_banned(self._session.address):
            self._count("banned")
            return AUTH_BANNED
        initial = words[1].encode() if len(words) == 2 else None
        try:
            credentials = await MECHANISMS[words[0].upper()](initial, ask)
        except SaslError as error:
            if error.reply is AUTH_WRONG:
                return await self._held_back(await self._failed(""))
            self._count("aborted")
            return error.reply
        # Asked again: since the command began, other sessions of this client may have used up the
        # guesses that it had.
        async with self._guard.guess(self._session.address) as may_guess:
            if not may_guess:
                self._count("banned")
                return AUTH_BANNED
            reply = await self._checked(credentials)
            if reply is not None:
                return reply
            delay_s = await self._failed(credentials.username)
        return await self._held_back(delay_s)

    def _obstacle(self, words: list[str]) -> Reply | None:
        session = self._session
        if not session.is_submission:
            return AUTH_NOT_OFFERED
        if session.helo is None or not session.esmtp:
            return HELO_FIRST
        if not offers_auth(session):
            return AUTH_NEEDS_TLS
        if session.account is not None:
            return ALREADY_AUTHENTICATED
        if not 1 <= len(words) <= 2:
            return BAD_ARGUMENTS
        return None if words[0].upper() in MECHANISMS else AUTH_MECHANISM_UNKNOWN

    async def _checked(self, credentials: Credentials) -> Reply | None:
        """None for a wrong password."""
        try:
            address = await self._policy.authenticate(
                credentials.username,
                credentials.password,
                client_address=str(self._session.address),
            )
            account = parse_mailbox(address, smtputf8=True) if address else None
        except (PolicyAway, AddressError):
            self._count("unavailable")
            return AUTH_UNAVAILABLE
        if account is None:
            return None
        await self._guard.succeeded(credentials.username)
        self._session.account = account
        self._failures = 0
        self._count("accepted")
        event(_log, INFO, "logged in", account=str(account), client=str(self._session.address))
        return AUTHENTICATED

    async def _failed(self, username: str) -> float:
        """Note a failure; how many seconds its answer is to be held back."""
        self._failures += 1
        self._count("wrong")
        delay_s = await self._guard.failed(self._session.address, username)
        # Not the name: people type their password where it belongs.
        event(
            _log, INFO, "login refused", failures=self._failures, client=str(self._session.address)
        )
        return delay_s

    async def _held_back(self, delay_s: float) -> Reply:
        await asyncio.sleep(delay_s)
        return AUTH_WRONG if self._failures < MAX_FAILURES else TOO_MANY_AUTH_FAILURES

    def _count(self, result: str) -> None:
        LOGINS.labels(self._session.listener.name, result).inc()
