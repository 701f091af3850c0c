"""What happens between the final dot and its reply: judge, write the trace, store.

The reply is 250 only after every record of the mail was acknowledged. Policy may refuse or defer; a
policy that does not answer means what `policy.unavailable` says; an authenticated client may only
send as itself. Whatever is not answered with 250 leaves nothing behind.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from gatepost.policy.v1.policy_pb2 import CheckMessageResponse
from gatepost.policy.v1.verdict_pb2 import ACTION_ACCEPT, ACTION_REFUSE, ACTION_SPAM, Verdict
from gatepost.policy.v1.verdict_pb2 import Reply as PolicyReply
from gatepost.queue.v1.record_pb2 import ContentReference
from services.common.config.model import Config
from services.common.config.policy import Unavailable
from services.common.failpoint import Failpoint, reached
from services.common.log import INFO, event
from services.common.mail.reply import POLICY_UNAVAILABLE, Reply, make_reply
from services.common.mail.trace import Origin, Protocol, received_field
from services.ingress.header_fields import rewritten, submission_fields
from services.ingress.intake import Content
from services.ingress.mail_store import MailStore, NotStored
from services.ingress.policy import Policy, PolicyAway
from services.ingress.records import fits_inline, records
from services.ingress.replies import NOT_YOUR_FROM, queued
from services.ingress.sender_check import from_is_own
from services.ingress.transaction import Session, Transaction

_log = logging.getLogger(__name__)

_DEFAULT_REFUSAL = Reply(550, "5.7.1", "Message refused by policy")
_DEFAULT_DEFERRAL = Reply(451, "4.7.1", "Message cannot be taken just now, please try again later")


async def accept(
    content: Content,
    *,
    transaction: Transaction,
    session: Session,
    config: Config,
    policy: Policy,
    store: MailStore,
) -> Reply:
    """Take a mail whose content came in whole, or refuse it. The reply to the final dot."""
    reached(Failpoint.AFTER_DATA)
    try:
        return await _accepted(content, transaction, session, config, policy, store)
    except _NotTaken as refusal:
        return refusal.reply
    except NotStored as failure:
        return failure.reply
    finally:
        # Completed contents are not affected: the spool is taken out of the content then.
        await content.discard()


class _NotTaken(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


async def _accepted(
    content: Content,
    transaction: Transaction,
    session: Session,
    config: Config,
    policy: Policy,
    store: MailStore,
) -> Reply:
    if session.account and not from_is_own(
        content.header,
        session.account,
        config.submission.sender_check,
        separator=config.recipients.subaddress_separator,
    ):
        raise _NotTaken(NOT_YOUR_FROM)
    answer = await _verdict(content, transaction, session, config, policy)
    now = datetime.now(UTC)
    header = _header(content, transaction, session, config, answer, now)
    front = header + content.front
    size = len(front) + content.spooled_octets
    kept = await _kept(content, front, transaction, store)
    spam = answer.verdict.action == ACTION_SPAM
    outgoing = records(transaction, session, content=kept, size=size, spam=spam, accepted_at=now)
    await store.publish(outgoing, content_id="" if isinstance(kept, bytes) else kept.content_id)
    event(
        _log,
        INFO,
        "message accepted",
        sender=transaction.sender_text,
        recipients=len(transaction.recipients),
        records=len(outgoing),
        octets=size,
        spam=spam,
    )
    return queued(transaction.message_id)


async def _verdict(
    content: Content, transaction: Transaction, session: Session, config: Config, policy: Policy
) -> CheckMessageResponse:
    try:
        answer = await policy.check_message(
            session.for_policy(),
            sender=transaction.sender_text,
            recipients=[str(each.mailbox) for each in transaction.recipients.values()],
            content=content,
            envelope_results=transaction.envelope_results or (),
            message_id=transaction.message_id,
        )
    except PolicyAway as away:
        if away.is_silence and config.policy.unavailable is Unavailable.ACCEPT:
            return CheckMessageResponse()
        raise _NotTaken(POLICY_UNAVAILABLE) from away
    refusal = refusal_of(answer.verdict)
    if refusal is not None:
        event(
            _log,
            INFO,
            "message refused",
            sender=transaction.sender_text,
            reply=str(refusal),
            check=answer.verdict.decisive_check,
        )
        raise _NotTaken(refusal)
    return answer


def refusal_of(verdict: Verdict) -> Reply | None:
    """The reply of a verdict that does not take the mail or the recipient; None if it does."""
    if verdict.action == ACTION_REFUSE:
        return _reply(verdict.reply, _DEFAULT_REFUSAL)
    if verdict.action in (ACTION_ACCEPT, ACTION_SPAM):
        return None
    # An action that this version does not know is no reason to refuse for good.
    return _reply(verdict.reply, _DEFAULT_DEFERRAL)


def _reply(given: PolicyReply, default: Reply) -> Reply:
    """Policy's own words, if they are a reply of the class that the action means."""
    if given.code // 100 != default.code // 100:
        return default
    try:
        return make_reply(given.code, given.enhanced_code or default.enhanced, given.text)
    except ValueError:
        return default


def _header(
    content: Content,
    transaction: Transaction,
    session: Session,
    config: Config,
    answer: CheckMessageResponse,
    now: datetime,
) -> bytes:
    if session.helo is None:
        raise ValueError("a transaction without HELO")
    hostname = config.smtp.hostname
    trace = received_field(
        origin=Origin(session.helo, session.address),
        by=hostname,
        protocol=Protocol(
            esmtp=session.esmtp,
            tls=session.tls is not None,
            authenticated=session.account is not None,
            smtputf8=transaction.parameters.smtputf8,
        ),
        message_id=transaction.message_id,
        recipients=[recipient.mailbox for recipient in transaction.recipients.values()],
        received_at=now,
        tls=session.tls,
    )
    added = b""
    if session.is_submission:
        added = submission_fields(
            content.header, message_id=transaction.message_id, hostname=hostname, now=now
        )
    return rewritten(
        content.header,
        hostname=hostname,
        trace=trace,
        policy_fields=answer.header_fields,
        added=added,
    )


async def _kept(
    content: Content, front: bytes, transaction: Transaction, store: MailStore
) -> bytes | ContentReference:
    """The content for the records: itself, or where it is stored."""
    spool = content.take_spool()
    if spool is None:
        if fits_inline(len(front), destinations=len(transaction.destinations)):
            return front
        spool = store.open_spool(transaction.message_id)
    return await store.store_content(spool, front)
