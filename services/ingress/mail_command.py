"""MAIL: from the client's words to a transaction (RFC 5321 §4.1.1.2).

What a client may say is decided here: syntax, TLS and login where they are demanded, sizes,
numbers. Whether the mail is wanted is asked of policy when its recipients are known; that includes
a sender who is a word but no address (`policy.actions.invalid_sender`).
"""

from __future__ import annotations

import logging

from services.common.config.model import Config
from services.common.log import INFO, event
from services.common.mail.address import AddressError, NoAddress, parse_reverse_path
from services.common.mail.envelope import ParameterError, parse_mail_parameters
from services.common.mail.reply import (
    AUTHENTICATION_REQUIRED,
    BAD_ARGUMENTS,
    BAD_SENDER_SYNTAX,
    MESSAGE_TOO_BIG,
    TLS_REQUIRED,
    Reply,
)
from services.ingress.extensions import parameter_extensions
from services.ingress.mail_store import MailStore
from services.ingress.replies import (
    HELO_FIRST,
    NON_ASCII_ADDRESS,
    NOT_YOUR_ADDRESS,
    TOO_MANY_MESSAGES,
)
from services.ingress.sender_check import sender_is_own
from services.ingress.transaction import Session, Transaction

_log = logging.getLogger(__name__)


def begin(
    argument: str, *, session: Session, config: Config, store: MailStore
) -> Transaction | Reply:
    """MAIL: the transaction that begins, or why none does."""
    obstacle = _obstacle(session, config, store)
    if obstacle is not None:
        return obstacle
    path = after_keyword(argument, "FROM:")
    if path is None:
        return BAD_ARGUMENTS
    smtputf8, invalid_sender = not path.isascii(), ""
    try:
        sender, rest = parse_reverse_path(path, smtputf8=smtputf8)
    except NoAddress as error:
        if session.account:
            return BAD_SENDER_SYNTAX
        sender, rest, invalid_sender = None, error.parameters, error.word
    except AddressError:
        return BAD_SENDER_SYNTAX
    try:
        parameters = parse_mail_parameters(rest, offered=parameter_extensions(session))
    except ParameterError as error:
        return error.reply
    if smtputf8 and not parameters.smtputf8:
        return NON_ASCII_ADDRESS
    limit = config.smtp.max_message_size
    if limit and (parameters.size or 0) > limit:
        return MESSAGE_TOO_BIG
    if session.account and not sender_is_own(
        sender,
        session.account,
        config.submission.sender_check,
        separator=config.recipients.subaddress_separator,
    ):
        event(_log, INFO, "sender refused", sender=str(sender), account=str(session.account))
        return NOT_YOUR_ADDRESS
    return Transaction(session.next_message_id(), sender, parameters, invalid_sender=invalid_sender)


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


def after_keyword(argument: str, keyword: str) -> str | None:
    """What follows `FROM:` or `TO:`, in any case; None if the keyword is not there."""
    if argument[: len(keyword)].upper() != keyword:
        return None
    return argument[len(keyword) :]
