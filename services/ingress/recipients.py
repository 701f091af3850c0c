"""RCPT: which recipients a transaction gets (RFC 5321 §4.1.1.3).

Whether mail for a recipient is wanted is asked of policy, for all that a client pipelined in one
call; a mail may go where policy says, and nowhere else. A mail has one verdict, so recipients under
different rules (`policy.domains`) do not share a transaction: the later ones are told to come in
one of their own. While policy is away and `policy.unavailable` is `accept`, mail is taken unjudged
where `services.ingress.unjudged` can tell where it goes: nothing here ever makes a relay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gatepost.policy.v1.policy_pb2 import RecipientAnswer
from services.common.config.model import Config
from services.common.config.policy import Unavailable
from services.common.jetstream import MAX_BATCH
from services.common.log import INFO, WARNING, event
from services.common.mail.address import (
    AddressError,
    Mailbox,
    parse_forward_path,
    parse_mailbox,
)
from services.common.mail.envelope import (
    ParameterError,
    RecipientParameters,
    parse_recipient_parameters,
)
from services.common.mail.reply import (
    BAD_ARGUMENTS,
    BAD_RECIPIENT_SYNTAX,
    INTERNAL_ERROR,
    POLICY_UNAVAILABLE,
    RECIPIENT_OK,
    TOO_MANY_RECIPIENTS,
    Reply,
)
from services.ingress.acceptance import refusal_of
from services.ingress.extensions import parameter_extensions
from services.ingress.mail_command import after_keyword
from services.ingress.policy import Policy, PolicyAway
from services.ingress.records import MAX_RECIPIENT_OCTETS, recipient_octets
from services.ingress.replies import NON_ASCII_ADDRESS, OTHER_RULES
from services.ingress.transaction import AcceptedRecipient, Session, Transaction
from services.ingress.unjudged import unjudged_target

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A forward-path that is in order."""

    mailbox: Mailbox
    parameters: RecipientParameters


async def add_recipients(
    arguments: Sequence[str],
    *,
    transaction: Transaction,
    session: Session,
    config: Config,
    policy: Policy,
) -> list[Reply]:
    """RCPT commands that came together: a reply to each, in their order.

    The recipients whose reply is a success are in the transaction.
    """
    read = [_read(argument, transaction, session, config) for argument in arguments]
    asked: dict[Mailbox, _Asked] = {}
    for each in read:
        if isinstance(each, _Asked):
            # Of one that was given twice the first stands, as if they had not come together.
            asked.setdefault(each.mailbox, each)
    told = await _told(tuple(asked.values()), transaction, session, config, policy)
    replies = dict(zip(asked, told, strict=True))
    return [each if isinstance(each, Reply) else replies[each.mailbox] for each in read]


def _read(
    argument: str, transaction: Transaction, session: Session, config: Config
) -> _Asked | Reply:
    path = after_keyword(argument, "TO:")
    if path is None:
        return BAD_ARGUMENTS
    smtputf8 = not path.isascii()
    try:
        mailbox, rest = parse_forward_path(path, smtputf8=smtputf8)
        parameters = parse_recipient_parameters(
            rest,
            offered=parameter_extensions(session),
            smtputf8=transaction.parameters.smtputf8,
        )
    except AddressError:
        return BAD_RECIPIENT_SYNTAX
    except ParameterError as error:
        return error.reply
    if smtputf8 and not transaction.parameters.smtputf8:
        return NON_ASCII_ADDRESS
    if mailbox in transaction.recipients:
        return RECIPIENT_OK
    if len(transaction.recipients) >= config.smtp.limits.recipients:
        return TOO_MANY_RECIPIENTS
    return _Asked(mailbox, parameters)


async def _told(
    asked: Sequence[_Asked],
    transaction: Transaction,
    session: Session,
    config: Config,
    policy: Policy,
) -> list[Reply]:
    """What each of them is answered."""
    if not asked:
        return []
    try:
        answer = await policy.check_envelope(
            session.for_policy(),
            sender=transaction.sender_text,
            recipients=[str(each.mailbox) for each in asked],
            message_id=transaction.message_id,
        )
    except PolicyAway as away:
        if not (away.is_silence and config.policy.unavailable is Unavailable.ACCEPT):
            return [POLICY_UNAVAILABLE] * len(asked)
        return [_unjudged(each, transaction, session, config) for each in asked]
    if transaction.envelope_results is None:
        transaction.envelope_results = tuple(answer.verdict.check_results)
    return [
        _by_verdict(of_recipient, each, transaction)
        for each, of_recipient in zip(asked, answer.recipients, strict=True)
    ]


def _by_verdict(answer: RecipientAnswer, asked: _Asked, transaction: Transaction) -> Reply:
    refusal = refusal_of(answer.verdict)
    if refusal is not None:
        event(
            _log,
            INFO,
            "recipient refused",
            sender=transaction.sender_text,
            recipient=str(asked.mailbox),
            reply=str(refusal),
            check=answer.verdict.decisive_check,
        )
        return refusal
    targets = _targets(answer.deliver_to)
    if not targets:
        event(
            _log, WARNING, "policy accepted a recipient for nowhere", recipient=str(asked.mailbox)
        )
        return INTERNAL_ERROR
    if transaction.rules not in (None, answer.rules):
        return OTHER_RULES
    reply = _add(asked, targets, transaction)
    if reply.is_success:
        transaction.rules = answer.rules
    return reply


def _unjudged(asked: _Asked, transaction: Transaction, session: Session, config: Config) -> Reply:
    authenticated = session.account is not None
    target = unjudged_target(asked.mailbox, config=config, authenticated=authenticated)
    return POLICY_UNAVAILABLE if target is None else _add(asked, (target,), transaction)


def _add(asked: _Asked, deliver_to: tuple[Mailbox, ...], transaction: Transaction) -> Reply:
    recipient = AcceptedRecipient(asked.mailbox, asked.parameters, deliver_to)
    destinations = {target.domain for target in deliver_to}
    octets = transaction.octets + recipient_octets(recipient)
    if octets > MAX_RECIPIENT_OCTETS or len(transaction.destinations | destinations) > MAX_BATCH:
        return TOO_MANY_RECIPIENTS
    transaction.octets = octets
    transaction.destinations |= destinations
    transaction.recipients[recipient.mailbox] = recipient
    return RECIPIENT_OK


def _targets(addresses: Iterable[str]) -> tuple[Mailbox, ...]:
    """Where policy says that the mail goes; what is no full address is left out."""
    try:
        targets = [parse_mailbox(address, smtputf8=True) for address in addresses]
    except AddressError:
        return ()
    return tuple(target for target in targets if target.domain)
