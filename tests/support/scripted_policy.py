"""A policy service that answers what a test says: a real gRPC server without any judgement.

Recipients in `example.test` and `example.org` are accepted and go where they say, others
are `550 5.7.1`, unless the table `recipients` says otherwise. The password of every account is
`secret`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from gatepost.policy.v1.directory_pb2 import Account, AuthenticateRequest, AuthenticateResponse
from gatepost.policy.v1.directory_pb2_grpc import (
    DirectoryServiceServicer,
    add_DirectoryServiceServicer_to_server,
)
from gatepost.policy.v1.policy_pb2 import (
    CheckEnvelopeRequest,
    CheckEnvelopeResponse,
    CheckMessageRequest,
    CheckMessageResponse,
    JudgeRequest,
    JudgeResponse,
    RecipientAnswer,
)
from gatepost.policy.v1.policy_pb2_grpc import (
    PolicyServiceServicer,
    add_PolicyServiceServicer_to_server,
)
from gatepost.policy.v1.verdict_pb2 import Action, CheckResult, HeaderField, Reply, Verdict
from services.common.rpc.errors import RpcFailure
from services.policy.conversation import Conversation

LOCAL_DOMAINS = frozenset({"example.test", "example.org"})
PASSWORD = "secret"


def refusal(code: int, enhanced: str, text: str) -> Verdict:
    """A verdict that ends in this reply."""
    action = Action.ACTION_REFUSE if code >= 500 else Action.ACTION_DEFER
    reply = Reply(code=code, enhanced_code=enhanced, text=text)
    return Verdict(action=action, reply=reply, decisive_check="scripted")


class _Question:
    """Stands in for the context of a call where a question came over a stream."""

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        """End this question with a status."""
        raise RpcFailure(code, text, reason="SCRIPTED")


@dataclass
class ScriptedPolicy(PolicyServiceServicer, DirectoryServiceServicer, HealthServicer):
    """The answers, and what was asked."""

    recipients: dict[str, Verdict] = field(default_factory=dict)
    deliver_to: dict[str, list[str]] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    """The rules that recipients fall under, by their address."""
    message: Verdict = field(default_factory=lambda: Verdict(action=Action.ACTION_ACCEPT))
    header_fields: list[HeaderField] = field(default_factory=list)
    failure: grpc.StatusCode | None = None
    delay_s: float = 0.0
    hangs: bool = False
    """Whether the whole process is silent, its health included."""
    streams: bool = True
    """Whether it takes questions over streams."""
    streams_opened: int = 0
    given_up: int = 0
    """Questions that nobody waited for any more."""
    envelopes: list[CheckEnvelopeRequest] = field(default_factory=list)
    messages: list[CheckMessageRequest] = field(default_factory=list)
    logins: list[AuthenticateRequest] = field(default_factory=list)
    port: int = 0

    async def CheckEnvelope(
        self,
        request: CheckEnvelopeRequest,
        context: grpc.aio.ServicerContext[CheckEnvelopeRequest, CheckEnvelopeResponse],
    ) -> CheckEnvelopeResponse:
        """Judge by the tables."""
        self.envelopes.append(request)
        await self._perhaps_fail(context)
        session = Verdict(
            action=Action.ACTION_ACCEPT,
            check_results=[CheckResult(check="spf_mismatch", result="none")],
        )
        answers = [self._answer(recipient) for recipient in request.recipients]
        return CheckEnvelopeResponse(verdict=session, recipients=answers)

    def _answer(self, recipient: str) -> RecipientAnswer:
        verdict = self.recipients.get(recipient) or Verdict(action=Action.ACTION_ACCEPT)
        domain = recipient.rpartition("@")[2]
        targets = self.deliver_to.get(recipient, [recipient])
        if domain == "postmaster":
            targets = ["postmaster@example.test"]
        elif domain not in LOCAL_DOMAINS and recipient not in self.deliver_to:
            verdict = self.recipients.get(recipient) or refusal(550, "5.7.1", "Relaying denied")
        if verdict.action not in (Action.ACTION_ACCEPT, Action.ACTION_SPAM):
            targets = []
        return RecipientAnswer(
            recipient=recipient,
            verdict=verdict,
            deliver_to=targets,
            rules=self.rules.get(recipient, ""),
        )

    async def CheckMessage(
        self,
        request: CheckMessageRequest,
        context: grpc.aio.ServicerContext[CheckMessageRequest, CheckMessageResponse],
    ) -> CheckMessageResponse:
        """Judge as `message` says."""
        self.messages.append(request)
        await self._perhaps_fail(context)
        return CheckMessageResponse(verdict=self.message, header_fields=self.header_fields)

    async def Judge(
        self,
        requests: AsyncIterator[JudgeRequest],
        context: grpc.aio.ServicerContext[JudgeRequest, JudgeResponse],
    ) -> AsyncIterator[JudgeResponse]:
        """The two above, over a stream."""
        if not self.streams:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no streams here")
        self.streams_opened += 1
        answer = {"envelope": self._asked("CheckEnvelope"), "message": self._asked("CheckMessage")}
        async for response in Conversation(answer).responses(self._read(requests)):
            yield response

    async def _read(self, requests: AsyncIterator[JudgeRequest]) -> AsyncIterator[JudgeRequest]:
        async for request in requests:
            if self.hangs:
                await asyncio.Event().wait()
            yield request

    def _asked(self, method: str) -> Any:
        async def answer(request: Any, _: object) -> Any:
            return await getattr(self, method)(request, _Question())

        return answer

    async def Authenticate(
        self,
        request: AuthenticateRequest,
        context: grpc.aio.ServicerContext[AuthenticateRequest, AuthenticateResponse],
    ) -> AuthenticateResponse:
        """Right if the password is `PASSWORD`."""
        self.logins.append(request)
        await self._perhaps_fail(context)
        if request.password != PASSWORD:
            return AuthenticateResponse(authenticated=False)
        account = Account(address=request.username, has_password=True)
        return AuthenticateResponse(authenticated=True, account=account)

    async def Check(self, request: Any, context: Any) -> HealthCheckResponse:
        """Its health."""
        if self.hangs:
            await asyncio.Event().wait()
        return HealthCheckResponse(status=HealthCheckResponse.SERVING)

    async def _perhaps_fail(self, context: Any) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.failure is not None:
            await context.abort(self.failure, "as the test wishes")


@asynccontextmanager
async def serve(policy: ScriptedPolicy) -> AsyncIterator[str]:
    """The target of a running server; the same port again if it ran before."""
    server = grpc.aio.server()
    add_PolicyServiceServicer_to_server(policy, server)
    add_DirectoryServiceServicer_to_server(policy, server)
    add_HealthServicer_to_server(policy, server)
    policy.port = server.add_insecure_port(f"127.0.0.1:{policy.port}")
    await server.start()
    try:
        yield f"127.0.0.1:{policy.port}"
    finally:
        await server.stop(None)
