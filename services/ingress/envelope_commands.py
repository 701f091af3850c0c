"""MAIL and RCPT: from the client's words to a transaction (RFC 5321 §4.1.1.2, §4.1.1.3).

What a client may say is decided here: syntax, TLS and login where they are demanded, sizes,
numbers. Whether the mail is wanted is asked of policy, once for each recipient; a mail may go where
policy says, and nowhere else. While policy is away and `policy.unavailable` is `accept`, mail is
taken unjudged for our own domains, and for others only from clients that logged in: nothing here
ever makes a relay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gatepost.policy.v1.policy_pb2 import CheckEnvelopeResponse
from services.common.config.model import Config
from services.common.config.policy import Unavailable
from services.common.jetstream import MAX_BATCH
from services.common.log import INFO, WARNING, event
from services.common.mail.address import (
    AddressError,
    Mailbox,
    make_mailbox,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
)
from services.common.mail.envelope import (
    ParameterError,
    RecipientParameters,
    parse_mail_parameters,
    parse_recipient_parameters,
)
from services.common.mail.reply import (
    AUTHENTICATION_REQUIRED,
    BAD_ARGUMENTS,
    BAD_RECIPIENT_SYNTAX,
    BAD_SENDER_SYNTAX,
    INTERNAL_ERROR,
    MESSAGE_TOO_BIG,
    POLICY_UNAVAILABLE,
    RECIPIENT_OK,
    TLS_REQUIRED,
    TOO_MANY_RECIPIENTS,
    Reply,
)
from services.ingress.acceptance import refusal_of
from services.ingress.extensions import parameter_extensions
from services.ingress.mail_store import MailStore
from services.ingress.policy import Policy, PolicyAway
from services.ingress.records import MAX_RECIPIENT_OCTETS, recipient_octets
from services.ingress.replies import (
    HELO_FIRST,
    NON_ASCII_ADDRESS,
    NOT_YOUR_ADDRESS,
    TOO_MANY_MESSAGES,
)
from services.ingress.sender_check import sender_is_own
from services.ingress.transaction import AcceptedRecipient, Session, Transaction

_log = logging.getLogger(__name__)


def begin(
    argument: str, *, session: Session, config: Config, store: MailStore
) -> Transaction | Reply:
    """MAIL: the transaction that begins, or why none does."""
    obstacle = _obstacle(session, config, store)
    if obstacle is not None:
        return obstacle
    path = _after_keyword(argument, "FROM:")
    if path is None:
        return BAD_ARGUMENTS
    smtputf8 = not path.isascii()
    try:
        sender, rest = parse_reverse_path(path, smtputf8=smtputf8)
        parameters = parse_mail_parameters(rest, offered=parameter_extensions(session))
    except AddressError:
        return BAD_SENDER_SYNTAX
    except ParameterError as error:
        return error.reply
    if smtputf8 and not parameters.smtputf8:
        return NON_ASCII_ADDRESS
    limit = config.smtp.max_message_size
    if limit and (parameters.size or 0) > limit:
        return MESSAGE_TOO_BIG
    if session.account and not sender_is_own(
        sender, session.account, config.submission.sender_check
    ):
        event(_log, INFO, "sender refused", sender=str(sender), account=str(session.account))
        return NOT_YOUR_ADDRESS
    return Transaction(session.next_message_id(), sender, parameters)


def _obstacle(session: Session, config: Config, store: MailStore) -> Reply | None:
    """Why no mail may begin in this session just now."""
    if session.helo is None:
        return HELO_FIRST
    required = session.listener.require_tls
    if session.tls is None and (config.smtp.require_tls if required is None else required):
        return TLS_REQUIRED
    if session.is_submission and session.account is None:
        return AUTHENTICATION_REQUIRED
    if session.transactions >= config.smtp.limits.messages_per_connection:
        return TOO_MANY_MESSAGES
    return store.obstacle


async def add_recipient(
    argument: str, *, transaction: Transaction, session: Session, config: Config, policy: Policy
) -> Reply:
    """RCPT: the reply; the recipient is in the transaction if it is a success."""
    path = _after_keyword(argument, "TO:")
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
    if mailbox.key in transaction.recipients:
        return RECIPIENT_OK
    if len(transaction.recipients) >= config.smtp.limits.recipients:
        return TOO_MANY_RECIPIENTS
    return await _judged(mailbox, parameters, transaction, session, config, policy)


async def _judged(
    mailbox: Mailbox,
    parameters: RecipientParameters,
    transaction: Transaction,
    session: Session,
    config: Config,
    policy: Policy,
) -> Reply:
    try:
        answer = await policy.check_envelope(
            session.for_policy(),
            sender=transaction.sender_text,
            recipients=[str(mailbox)],
            message_id=transaction.message_id,
        )
    except PolicyAway as away:
        if not (away.is_silence and config.policy.unavailable is Unavailable.ACCEPT):
            return POLICY_UNAVAILABLE
        target = _unjudged_target(mailbox, session, config)
        if target is None:
            return POLICY_UNAVAILABLE
        return _add(AcceptedRecipient(mailbox, parameters, (target,)), transaction)
    if transaction.envelope_results is None:
        transaction.envelope_results = tuple(answer.verdict.check_results)
    return _by_verdict(answer, mailbox, parameters, transaction)


def _by_verdict(
    answer: CheckEnvelopeResponse,
    mailbox: Mailbox,
    parameters: RecipientParameters,
    transaction: Transaction,
) -> Reply:
    verdict = answer.recipients[0].verdict
    refusal = refusal_of(verdict)
    if refusal is not None:
        event(
            _log,
            INFO,
            "recipient refused",
            sender=transaction.sender_text,
            recipient=str(mailbox),
            reply=str(refusal),
            check=verdict.decisive_check,
        )
        return refusal
    targets = _targets(answer.recipients[0].deliver_to)
    if not targets:
        event(_log, WARNING, "policy accepted a recipient for nowhere", recipient=str(mailbox))
        return INTERNAL_ERROR
    return _add(AcceptedRecipient(mailbox, parameters, targets), transaction)


def _add(recipient: AcceptedRecipient, transaction: Transaction) -> Reply:
    destinations = {target.domain for target in recipient.deliver_to}
    octets = transaction.octets + recipient_octets(recipient)
    if octets > MAX_RECIPIENT_OCTETS or len(transaction.destinations | destinations) > MAX_BATCH:
        return TOO_MANY_RECIPIENTS
    transaction.octets = octets
    transaction.destinations |= destinations
    transaction.recipients[recipient.mailbox.key] = recipient
    return RECIPIENT_OK


def _targets(addresses: Iterable[str]) -> tuple[Mailbox, ...]:
    """Where policy says that the mail goes; what is no full address is left out."""
    try:
        targets = [parse_mailbox(address, smtputf8=True) for address in addresses]
    except AddressError:
        return ()
    return tuple(target for target in targets if target.domain)


def _unjudged_target(mailbox: Mailbox, session: Session, config: Config) -> Mailbox | None:
    """Where mail goes without policy's word; None if that is not for us to say."""
    domains = config.domains
    if not mailbox.domain:
        return make_mailbox(mailbox.local_part, domains.local[0]) if domains.local else None
    ours = mailbox.domain in domains.local or mailbox.domain in domains.relay
    return mailbox if ours or session.account is not None else None


def _after_keyword(argument: str, keyword: str) -> str | None:
    """What follows `FROM:` or `TO:`, in any case; None if the keyword is not there."""
    if argument[: len(keyword)].upper() != keyword:
        return None
    return argument[len(keyword) :]
