"""The ingress's questions to the policy service: envelope, message, password.

The only module here that knows gRPC. Guarantees: a question is answered, or raises `PolicyAway`
within its deadline; while policy is away the breaker answers at once. A call that policy refuses (a
missing token, an error of ours) is `PolicyAway` as well, but never counts as a reason to take the
mail unjudged: `is_silence` is false, since whoever can provoke an error must not get around the
checks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio
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
from services.ingress.intake import Content

_log = logging.getLogger(__name__)

CHECK_DEADLINE_S: Final = 2.0
"""What a client may wait at RCPT or after DATA for a policy that hangs."""

AUTHENTICATE_DEADLINE_S: Final = 5.0
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

_SILENCE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class PolicyAway(Exception):
    """Policy gave no answer. `is_silence`: it could not be reached, rather than refused."""

    def __init__(self, reason: str, *, is_silence: bool) -> None:
        super().__init__(reason)
        self.is_silence = is_silence


class Policy:
    """The policy and directory services behind one channel."""

    def __init__(
        self, channel: grpc.aio.Channel, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        checks, directory = PolicyServiceStub(channel), DirectoryServiceStub(channel)
        self._check_envelope = checks.CheckEnvelope
        self._check_message = checks.CheckMessage
        self._authenticate = directory.Authenticate
        self._breaker = Breaker()
        self._clock = clock

    async def check_envelope(
        self, session: Session, *, sender: str, recipients: Sequence[str], message_id: str
    ) -> CheckEnvelopeResponse:
        """The verdict on session, sender and these recipients. Raises `PolicyAway`."""
        request = CheckEnvelopeRequest(
            session=session, sender=sender, recipients=recipients, message_id=message_id
        )
        answer: CheckEnvelopeResponse = await self._ask("envelope", self._check_envelope, request)
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
        answer: CheckMessageResponse = await self._ask("message", self._check_message, request)
        return answer

    async def authenticate(self, username: str, password: str, *, client_address: str) -> str:
        """The address of the account; empty for a wrong pair. Raises `PolicyAway`."""
        request = AuthenticateRequest(
            username=username, password=password, client_address=client_address
        )
        answer: AuthenticateResponse = await self._ask(
            "authenticate", self._authenticate, request, deadline_s=AUTHENTICATE_DEADLINE_S
        )
        return answer.account.address if answer.authenticated else ""

    async def _ask(
        self, call: str, method: Any, request: object, *, deadline_s: float = CHECK_DEADLINE_S
    ) -> Any:
        started = self._clock()
        if not self._breaker.allows(started):
            raise PolicyAway("policy did not answer a moment ago", is_silence=True)
        try:
            answer = await method(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            raise self._failure(call, error) from error
        self._breaker.succeeded()
        BREAKER_OPEN.set(0)
        SECONDS.labels(call).observe(self._clock() - started)
        return answer

    def _failure(self, call: str, error: grpc.aio.AioRpcError) -> PolicyAway:
        is_silence = error.code() in _SILENCE
        if is_silence:
            self._breaker.failed(self._clock())
            BREAKER_OPEN.set(self._breaker.is_open)
        else:
            self._breaker.succeeded()
        event(
            _log,
            WARNING,
            "policy does not answer",
            call=call,
            code=error.code().name,
            reason=error.details(),
        )
        return PolicyAway(error.code().name, is_silence=is_silence)
