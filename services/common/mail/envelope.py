"""The envelope of a mail (RFC 5321 §2.3.1): reverse-path, recipients and the parameters of MAIL and
RCPT.

The values and the parser of the parameters are in modules of their own and can be imported from
here.
"""

from dataclasses import dataclass, field

from services.common.mail.address import Mailbox
from services.common.mail.parameter_parser import (
    ParameterError,
    parse_mail_parameters,
    parse_recipient_parameters,
)
from services.common.mail.parameters import (
    ALL_EXTENSIONS,
    Body,
    Extension,
    MailParameters,
    Notify,
    RecipientParameters,
    Ret,
    mail_options,
    recipient_options,
)
from services.common.mail.xtext import XtextError, decode_xtext, encode_xtext

__all__ = [
    "ALL_EXTENSIONS",
    "Body",
    "Envelope",
    "Extension",
    "MailParameters",
    "Notify",
    "ParameterError",
    "Recipient",
    "RecipientParameters",
    "Ret",
    "XtextError",
    "decode_xtext",
    "encode_xtext",
    "mail_options",
    "parse_mail_parameters",
    "parse_recipient_parameters",
    "recipient_options",
]


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward-path and what the sender wants to know about it."""

    mailbox: Mailbox
    parameters: RecipientParameters = field(default_factory=RecipientParameters)

    def wants(self, event: Notify) -> bool:
        """Whether a report of `event` is asked for. Without NOTIFY: of failure and delay (RFC 3461
        §4.1).
        """
        notify = self.parameters.notify
        return event in notify if notify else event in (Notify.FAILURE, Notify.DELAY)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything the SMTP transaction said; `reverse_path` is None for the null sender `<>`."""

    reverse_path: Mailbox | None
    recipients: tuple[Recipient, ...] = ()
    parameters: MailParameters = field(default_factory=MailParameters)

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address in it can only be told to a peer with SMTPUTF8."""
        senders = (self.reverse_path,) if self.reverse_path else ()
        mailboxes = (*senders, *(recipient.mailbox for recipient in self.recipients))
        return any(mailbox.needs_smtputf8 for mailbox in mailboxes)
