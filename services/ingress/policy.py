"""The ingress's questions to the policy service: envelope, message, password.

Guarantees: a question is answered, or raises `PolicyAway` within its deadline; a policy that is
gone or hangs is noticed within two seconds (`heartbeat`), and after a few times the breaker answers
at once. Checks go over streams (`judges.py`), logins and very large headers by calls. A question
that policy refuses (a missing token, an error of ours) or that takes too long is
`PolicyAway` as well, but no reason to take the mail unjudged: `is_silence` is false, since whoever
can provoke an error or a slow check must not get around the checks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from prometheus_client import Gauge, Histogram

from gatepost.policy.v1.directory_pb2 import AuthenticateRequest, AuthenticateResponse
from gatepost.policy.v1.directory_pb2_grpc import DirectoryServiceStub
from gatepost.policy.v1.policy_pb2 import (
    CheckEnvelopeRequest,
    CheckEnvelopeResponse,
    CheckMessageRequest,
    CheckMessageResponse,
    HeaderAndDigests,
    Session,
)
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from gatepost.policy.v1.verdict_pb2 import CheckResult
from services.common.log import WARNING, event
from services.ingress.breaker import Breaker
from services.ingress.heartbeat import Heartbeat, HeartbeatLost, health
from services.ingress.intake import Content
from services.ingress.judge_stream import Unanswered
from services.ingress.judges import Judges

_log = logging.getLogger(__name__)

DEADLINE_MARGIN_S: Final = 1.0
"""Policy answers in `policy.check_timeout`; that long, and this much more, an answer may take."""

AUTHENTICATE_DEADLINE_S: Final = 10.0
"""One argon2 hash takes 50 to 100 ms, and several may queue."""

SECONDS = Histogram(
    "gatepost_ingress_policy_seconds",
    "Time until policy answered, by call.",
    ["call"],  # envelope, message, authenticate
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
BREAKER_OPEN = Gauge(
    "gatepost_ingress_policy_breaker_open",
    "1 while policy is not asked because it did not answer.",
)

_JUDGED: Final = frozenset({"envelope", "message"})

_SILENCE: Final = frozenset({grpc.StatusCode.UNAVAILABLE})
"""Not DEADLINE_EXCEEDED: that is the length of a check, which the sender's DNS may determine."""


class PolicyAway(Exception):
    """Policy gave no answer. `is_silence`: it could not be reached, rather than refused."""

    def __init__(self, reason: str, *, is_silence: bool) -> None:
        super().__init__(reason)
        self.is_silence = is_silence


class Policy:
    """The policy and directory services behind one channel. `check_timeout_s`: as set now."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        check_timeout_s: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        checks, directory = PolicyServiceStub(channel), DirectoryServiceStub(channel)
        self._calls: dict[str, Any] = {
            "envelope": checks.CheckEnvelope,
            "message": checks.CheckMessage,
            "authenticate": directory.Authenticate,
        }
        self._judges = Judges(checks.Judge, clock=clock)
        self._heartbeat = Heartbeat(health(channel))
        self._breaker = Breaker()
        self._check_timeout_s = check_timeout_s
        self._clock = clock

    async def check_envelope(
        self, session: Session, *, sender: str, recipients: Sequence[str], message_id: str
    ) -> CheckEnvelopeResponse:
        """The verdict on session, sender and these recipients. Raises `PolicyAway`."""
        request = CheckEnvelopeRequest(
            session=session, sender=sender, recipients=recipients, message_id=message_id
        )
        answer: CheckEnvelopeResponse = await self._ask(
            "envelope", request, deadline_s=self._check_deadline_s
        )
        if len(answer.recipients) != len(recipients):
            raise PolicyAway("the answer is not about these recipients", is_silence=False)
        return answer

    async def check_message(
        self,
        session: Session,
        *,
        sender: str,
        recipients: Sequence[str],
        content: Content,
        envelope_results: Sequence[CheckResult],
        message_id: str,
    ) -> CheckMessageResponse:
        """The verdict on a whole mail. Raises `PolicyAway`."""
        request = CheckMessageRequest(
            session=session,
            sender=sender,
            recipients=recipients,
            header=HeaderAndDigests(
                header_block=bytes(content.header),
                body_digests=content.digests,
                size=content.size,
            ),
            envelope_results=envelope_results,
            message_id=message_id,
        )
        answer: CheckMessageResponse = await self._ask(
            "message", request, deadline_s=self._check_deadline_s
        )
        return answer

    async def authenticate(self, username: str, password: str, *, client_address: str) -> str:
        """The address of the account; empty for a wrong pair. Raises `PolicyAway`."""
        request = AuthenticateRequest(
            username=username, password=password, client_address=client_address
        )
        answer: AuthenticateResponse = await self._ask(
            "authenticate", request, deadline_s=AUTHENTICATE_DEADLINE_S
        )
        return answer.account.address if answer.authenticated else ""

    @property
    def _check_deadline_s(self) -> float:
        return self._check_timeout_s() + DEADLINE_MARGIN_S

    async def close(self) -> None:
        """Ask nothing more."""
        self._judges.close()

    async def _ask(self, kind: str, request: Message, *, deadline_s: float) -> Any:
        started = self._clock()
        if not self._breaker.allows(started):
            raise PolicyAway("policy did not answer a moment ago", is_silence=True)
        try:
            answer = await self._answer(kind, request, deadline_s)
        except Unanswered as error:
            raise self._failure(kind, error.code.name, error.code in _SILENCE) from error
        except HeartbeatLost as error:
            raise self._failure(kind, "no sign of life", True) from error
        self._breaker.succeeded()
        BREAKER_OPEN.set(0)
        SECONDS.labels(kind).observe(self._clock() - started)
        return answer

    async def _answer(self, kind: str, request: Message, deadline_s: float) -> Any:
        """By a stream, or else by a call."""
        if kind in _JUDGED and self._judges.take(request):
            try:
                return await self._judges.ask(kind, request, seconds=deadline_s)
            except Unanswered as error:
                if error.code is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
        try:
            with self._heartbeat.watched(self._calls[kind](request, timeout=deadline_s)) as call:
                return await call
        except grpc.aio.AioRpcError as error:
            raise Unanswered(error.code()) from error

    def _failure(self, call: str, reason: str, is_silence: bool) -> PolicyAway:
        if is_silence:
            self._breaker.failed(self._clock())
            BREAKER_OPEN.set(self._breaker.is_open)
        else:
            self._breaker.succeeded()
        event(_log, WARNING, "policy does not answer", call=call, reason=reason)
        return PolicyAway(reason, is_silence=is_silence)
