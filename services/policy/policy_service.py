"""PolicyService: requests in, verdicts out. How a verdict is made stands in the modules it joins.

A dry run goes the same way as real mail. What it leaves out is counting, creating and telling.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import policy_pb2_grpc, verdict_pb2
from gatepost.queue.v1 import event_pb2
from services.common.dns import Resolver
from services.common.mail.reply import SENDER_OK
from services.common.rpc.errors import not_found, unavailable
from services.common.rpc.guard import Guard
from services.common.store import StoreError
from services.common.turns import Turns
from services.policy import judge
from services.policy.action import Action
from services.policy.answers import add_results, fill_recipient, fill_verdict
from services.policy.arc.testimony import witnesses
from services.policy.authentication import authenticate
from services.policy.callout.callouts import Callouts
from services.policy.checks import spf_mismatch
from services.policy.checks.check import Finding
from services.policy.checks.table import ENVELOPE_CHECKS, MESSAGE_CHECKS
from services.policy.client_addresses import ClientAddresses
from services.policy.conversation import Conversation
from services.policy.declared import Declared
from services.policy.directory import AccountDirectory
from services.policy.events import Events
from services.policy.greylist import Greylist
from services.policy.header_fields import header_fields
from services.policy.means import MeansSource
from services.policy.recipient_desk import RecipientDesk
from services.policy.replay import BadCandidate, Replay, candidate_rules
from services.policy.requests import (
    bad,
    check_message_id,
    check_recipients,
    read_envelope,
    read_mail,
    read_results,
)
from services.policy.rules import Rules, RulesSource, is_exempt
from services.policy.subject import Envelope, Mail
from services.policy.verdict import ActionTable, Verdict, decide

_log = logging.getLogger(__name__)

MARGIN_S = 0.25
"""Left of a caller's deadline to answer in: a verdict that says "cannot tell" is worth more to it
than none."""

MAX_WITH_EVIDENCE = 20
"""Recipients up to which each answer repeats the evidence about the sender."""

DEFAULT_EXAMPLES = 20
MAX_EXAMPLES = 1000

_CHECKS = {check.name: check for check in ENVELOPE_CHECKS}

_NAME = pb.DESCRIPTOR.services_by_name["PolicyService"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the service works with."""

    rules: RulesSource
    resolver: Resolver
    dry_resolver: Resolver
    """For dry runs: knows what `resolver` knows, and keeps what it learns to itself."""
    directory: AccountDirectory
    events: Events
    callouts: Callouts
    declared: Declared
    greylist: Greylist
    turns: Turns
    """Shared by everything that takes long."""


class PolicyService(policy_pb2_grpc.PolicyServiceServicer):
    """Judges mail."""

    def __init__(self, parts: Parts, guard: Guard) -> None:
        self._parts = parts
        self._guard = guard
        self._asked = {
            "envelope": guard.asked(f"{_NAME}/CheckEnvelope", self.CheckEnvelope),
            "message": guard.asked(f"{_NAME}/CheckMessage", self.CheckMessage),
        }
        self._means = MeansSource(parts.resolver, parts.dry_resolver, parts.callouts, parts.turns)
        self._clients = ClientAddresses()
        self._desk = RecipientDesk(
            parts.rules.current, parts.directory, parts.declared, parts.greylist
        )

    async def CheckEnvelope(
        self, request: pb.CheckEnvelopeRequest, context: _Context
    ) -> pb.CheckEnvelopeResponse:
        """Judge session, sender and recipients."""
        self._parts.turns.called()
        envelope = read_envelope(request)
        check_recipients(request.recipients, count=len(request.recipients))
        check_message_id(request.message_id, dry_run=request.dry_run)
        if not request.dry_run:
            self._clients.note(request.session, datetime.now(UTC))
        rules = self._parts.rules.current
        tables = [rules.table_for_address(recipient) for recipient in request.recipients]
        findings = await self._find_envelope(
            rules, envelope, context, [rules.table, *tables], dry_run=request.dry_run
        )
        results = findings.results(rules.table)
        verdict = decide(results, accepted=SENDER_OK)
        if not request.dry_run:
            judge.count_results(results)
            judge.count_verdict("envelope", verdict)
        response = pb.CheckEnvelopeResponse()
        fill_verdict(response.verdict, verdict)
        add_results(response.verdict, results)
        told = response.verdict
        if len(request.recipients) > MAX_WITH_EVIDENCE:
            told = verdict_pb2.Verdict()
            add_results(told, results, with_evidence=False)
        for recipient, table in zip(request.recipients, tables, strict=True):
            is_general = table is rules.table
            own = results if is_general else findings.results(table)
            decision, way = await self._desk.judge(
                recipient, rules, envelope, own, dry_run=request.dry_run
            )
            if not request.dry_run:
                judge.count_verdict("recipient", decision)
            # Mail that is not judged may have all its recipients in one transaction.
            named = "" if is_exempt(rules, envelope) else table.name
            answer = response.recipients.add(recipient=recipient, rules=named)
            fill_recipient(answer, decision, way.deliver_to)
            if is_general:
                answer.verdict.check_results.extend(told.check_results)
            else:
                add_results(answer.verdict, own)
            add_results(answer.verdict, decision.results[-1:])
            if decision.action in (Action.DEFER, Action.REFUSE) and not request.dry_run:
                self._tell(request, [recipient], answer.verdict, [])
        return response

    async def CheckMessage(
        self, request: pb.CheckMessageRequest, context: _Context
    ) -> pb.CheckMessageResponse:
        """Judge a whole mail."""
        self._parts.turns.called()
        envelope = read_envelope(request)
        check_recipients(request.recipients, count=len(request.recipients))
        check_message_id(request.message_id, dry_run=request.dry_run)
        given = request.envelope_results
        known = read_results(given, _CHECKS, count=len(given), strict=request.dry_run)
        mail = read_mail(request, envelope)
        rules = self._parts.rules.current
        table = rules.table_for_all(request.recipients)
        of_envelope = await self._find_envelope(
            rules, envelope, context, [table], dry_run=request.dry_run, known=known
        )
        _note_spf(mail, of_envelope)
        of_message = await self._find_message(rules, mail, context, table, dry_run=request.dry_run)
        seen = witnesses(mail.arc, rules.config.policy.arc.trusted_sealers)
        after = judge.overruled(of_message, seen).results(table)
        replaced = {result.check for result in after}
        of_envelope = judge.overruled(of_envelope, seen)
        before = [r for r in of_envelope.results(table) if r.check not in replaced]
        verdict = decide([*before, *after])
        if not request.dry_run:
            judge.count_results([*(r for r in before if r.check not in known), *after])
            judge.count_verdict("message", verdict)
        response = pb.CheckMessageResponse()
        fill_verdict(response.verdict, verdict)
        add_results(response.verdict, verdict.results)
        fields = self._fields(verdict, mail, rules, request.message_id)
        if not request.dry_run:
            self._tell(request, request.recipients, response.verdict, fields)
        response.header_fields.extend(fields)
        return response

    async def Judge(
        self, requests: AsyncIterator[pb.JudgeRequest], context: _Context
    ) -> AsyncGenerator[pb.JudgeResponse, None]:
        """The two questions above, many of them over one stream."""
        conversation = Conversation(self._asked)
        self._guard.ends_by(conversation.stop)
        async with aclosing(conversation.responses(requests)) as responses:
            async for response in responses:
                yield response

    async def ExplainMessage(
        self, request: pb.ExplainMessageRequest, context: _Context
    ) -> pb.ExplainMessageResponse:
        """The stored verdict behind a mail."""
        check_message_id(request.message_id, dry_run=False)
        try:
            found = await self._parts.events.verdict(request.message_id)
        except StoreError as error:
            raise unavailable("the events cannot be read just now", reason="NATS_AWAY") from error
        if found is None:
            text = f"no verdict on {request.message_id}; verdicts are kept for nats.events_max_age"
            raise not_found(text, reason="VERDICT_UNKNOWN")
        verdict = found.verdict
        return pb.ExplainMessageResponse(
            session=verdict.session,
            sender=verdict.sender,
            recipients=verdict.recipients,
            verdict=verdict.verdict,
            decide_time=found.event_time,
            header_fields=verdict.header_fields,
        )

    async def ReplayVerdicts(
        self, request: pb.ReplayVerdictsRequest, context: _Context
    ) -> pb.ReplayVerdictsResponse:
        """What a candidate configuration would have decided."""
        if not request.HasField("since_time"):
            raise bad("since_time", "missing; give a time such as 2026-01-31T00:00:00Z")
        if request.max_examples > MAX_EXAMPLES:
            raise bad("max_examples", f"at most {MAX_EXAMPLES}, not {request.max_examples}")
        try:
            since = request.since_time.ToDatetime(tzinfo=UTC)
            rules = candidate_rules(request.candidate_policy, self._parts.rules.current.config)
        except BadCandidate as candidate:
            raise bad("candidate_policy", str(candidate)) from candidate
        except (ValueError, OverflowError):
            raise bad("since_time", "not a time between the years 1 and 9999") from None
        replay = Replay(rules, max_examples=request.max_examples or DEFAULT_EXAMPLES)
        try:
            async for recorded in self._parts.events.verdicts(since):
                replay.add(recorded)
        except StoreError as error:
            raise unavailable("the events cannot be read just now", reason="NATS_AWAY") from error
        return replay.response

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: _Context
    ) -> pb.GetStatusResponse:
        """Whether the clients' addresses reach us."""
        return self._clients.status()

    # --- what the checks find -------------------------------------------------------------------

    async def _find_envelope(
        self,
        rules: Rules,
        envelope: Envelope,
        context: _Context,
        tables: Sequence[ActionTable],
        *,
        dry_run: bool,
        known: Mapping[str, Finding] | None = None,
    ) -> judge.Findings[Envelope]:
        """In the order of the table of checks; nothing for mail that is not judged."""
        if is_exempt(rules, envelope):
            return judge.Findings((), ())
        known = known or {}
        means = self._means.under(rules, dry_run=dry_run)
        wanted = judge.that_matter(ENVELOPE_CHECKS, envelope, means, tables)
        missing = [check for check in wanted if check.name not in known]
        seconds = _seconds_left(rules, context)
        found = await judge.run_checks(missing, envelope, means, seconds=seconds)
        told = {name: (finding, 0.0) for name, finding in known.items()}
        told |= zip([check.name for check in missing], found, strict=True)
        checks = [check for check in ENVELOPE_CHECKS if check.name in told]
        return judge.Findings(checks, [told[check.name] for check in checks])

    async def _find_message(
        self, rules: Rules, mail: Mail, context: _Context, table: ActionTable, *, dry_run: bool
    ) -> judge.Findings[Mail]:
        if is_exempt(rules, mail.envelope):
            return judge.Findings((), ())
        means = self._means.under(rules, dry_run=dry_run)
        await authenticate(mail, means, seconds=_seconds_left(rules, context))
        checks = judge.that_matter(MESSAGE_CHECKS, mail, means, [table])
        seconds = _seconds_left(rules, context)
        found = await judge.run_checks(checks, mail, means, seconds=seconds)
        return judge.Findings(checks, found)

    # --- what stays behind ----------------------------------------------------------------------

    def _fields(
        self, verdict: Verdict, mail: Mail, rules: Rules, message_id: str
    ) -> list[verdict_pb2.HeaderField]:
        if verdict.action in (Action.DEFER, Action.REFUSE):
            return []
        hostname = rules.config.smtp.hostname
        fields = header_fields(verdict, mail, hostname=hostname, message_id=message_id)
        return [verdict_pb2.HeaderField(name=name, value=value.decode()) for name, value in fields]

    def _tell(
        self,
        request: pb.CheckEnvelopeRequest | pb.CheckMessageRequest,
        recipients: Any,
        verdict: verdict_pb2.Verdict,
        fields: list[verdict_pb2.HeaderField],
    ) -> None:
        record = event_pb2.Event(message_id=request.message_id)
        # In place: a message that is handed over is copied, and evidence is kilobytes.
        told = record.verdict
        told.session.CopyFrom(request.session)
        told.sender = request.sender
        told.recipients.extend(recipients)
        told.verdict.CopyFrom(verdict)
        told.header_fields.extend(fields)
        self._parts.events.tell(record)


def _note_spf(mail: Mail, findings: judge.Findings[Envelope]) -> None:
    """Tell the mail what SPF found, for the checks that build on it."""
    for check, (finding, _) in zip(findings.checks, findings.found, strict=True):
        if check is spf_mismatch.CHECK:
            mail.spf_result = finding.result
            mail.spf_domain = spf_mismatch.identity(mail.envelope)[2]


def _seconds_left(rules: Rules, context: _Context) -> float:
    """How long checks may take: as configured, and no longer than the caller waits."""
    seconds = rules.config.policy.check_timeout.total_seconds()
    left = context.time_remaining()
    return seconds if left is None else min(seconds, max(left - MARGIN_S, left / 2))
