"""What MAIL and RCPT can say about a mail besides its addresses, and how to say it to the next hop.

DSN parameters (RFC 3461) are kept as received, xtext and all: they are handed on unchanged and
decoded only where a report is written. Parsing is in `parameter_parser`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from services.common.mail.address import AddressError, Mailbox, parse_mailbox
from services.common.mail.xtext import XtextError, decode_xtext


class Body(StrEnum):
    """BODY= (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class Ret(StrEnum):
    """RET= (RFC 3461 §4.3): how much of the mail a failure report returns."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(StrEnum):
    """NOTIFY= (RFC 3461 §4.1): which reports the sender wants about one recipient."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Extension(StrEnum):
    """EHLO keywords on which MAIL and RCPT parameters depend."""

    SIZE = "SIZE"
    EIGHT_BIT_MIME = "8BITMIME"
    SMTPUTF8 = "SMTPUTF8"
    DSN = "DSN"
    AUTH = "AUTH"


ALL_EXTENSIONS: frozenset[Extension] = frozenset(Extension)


@dataclass(frozen=True, slots=True)
class MailParameters:
    """The parameters of MAIL; None or False where the client gave none."""

    size: int | None = None
    """Octets announced with SIZE=."""
    body: Body | None = None
    smtputf8: bool = False
    ret: Ret | None = None
    envid: str | None = None
    """xtext as received; `decode_xtext` cannot fail on it."""
    auth: str | None = None
    """xtext as received (RFC 4954 §5); see `submitter`."""

    @property
    def submitter(self) -> Mailbox | None:
        """Who AUTH= says submitted the mail; None when it is absent, `<>` or names no mailbox."""
        try:
            return parse_mailbox(decode_xtext(self.auth)) if self.auth else None
        except (AddressError, XtextError):
            return None


@dataclass(frozen=True, slots=True)
class RecipientParameters:
    """The parameters of RCPT; an empty `notify` and None where the client gave none."""

    notify: frozenset[Notify] = frozenset()
    orcpt: str | None = None
    """`addr-type;address` exactly as received; see `original_recipient`."""

    @property
    def original_recipient(self) -> str | None:
        """ORCPT decoded, as the field of that name in a report has it (RFC 3464 §2.3.1)."""
        if self.orcpt is None:
            return None
        kind, _, address = self.orcpt.partition(";")
        return f"{kind};{decode_xtext(address, utf8=is_utf8_type(kind))}"


def is_utf8_type(kind: str) -> bool:
    """Whether an address type is the one of RFC 6533, whose addresses may be bare UTF-8."""
    return kind.lower() == "utf-8"


def mail_options(parameters: MailParameters, *, offered: Collection[str]) -> list[str]:
    """The parameters to give after MAIL to a peer that offers these EHLO keywords; AUTH= is never
    passed on.
    """
    options = {
        Extension.SIZE: [] if parameters.size is None else [f"SIZE={parameters.size}"],
        Extension.EIGHT_BIT_MIME: [f"BODY={parameters.body}"] if parameters.body else [],
        Extension.SMTPUTF8: ["SMTPUTF8"] if parameters.smtputf8 else [],
        Extension.DSN: [
            *([f"RET={parameters.ret}"] if parameters.ret else []),
            *([f"ENVID={parameters.envid}"] if parameters.envid else []),
        ],
    }
    return [option for keyword, given in options.items() if keyword in offered for option in given]


def recipient_options(parameters: RecipientParameters, *, offered: Collection[str]) -> list[str]:
    """The parameters to give after RCPT to a peer that offers these EHLO keywords."""
    if Extension.DSN not in offered:
        return []
    notify = ",".join(event for event in Notify if event in parameters.notify)
    return [
        *([f"NOTIFY={notify}"] if notify else []),
        *([f"ORCPT={parameters.orcpt}"] if parameters.orcpt else []),
    ]
