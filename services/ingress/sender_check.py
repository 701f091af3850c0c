"""Whether somebody who logged in sends as himself (pure): `submission.sender_check`.

The reverse-path and every address of From must be the account's own, compared without regard to
case. A sub-address of the account (`you+tag@example.org`, by `recipients.subaddress_separator`) is
its own too, and so is the blank reverse-path, which disposition notifications have (RFC 8098 §3).
Without this a login would be a
licence to send in anybody's name, with the signature of any domain that is hosted here.
"""

from __future__ import annotations

from services.common.config.submission import SenderCheck
from services.common.mail.address import Mailbox
from services.common.mail.message import HeaderBlock, from_addresses


def sender_is_own(
    sender: Mailbox | None, account: Mailbox, check: SenderCheck, *, separator: str
) -> bool:
    """Whether the reverse-path may be used; `separator`: of sub-addresses, blank for none."""
    return check is SenderCheck.OFF or sender is None or _is_own(sender, account, separator)


def from_is_own(
    header: HeaderBlock, account: Mailbox, check: SenderCheck, *, separator: str
) -> bool:
    """Whether From may be used: one field, which can be read, and all in it are the account."""
    if check is not SenderCheck.FULL:
        return True
    authors = from_addresses(header)
    return authors.problem is None and all(
        _is_own(author, account, separator) for author in authors.addresses
    )


def _is_own(mailbox: Mailbox, account: Mailbox, separator: str) -> bool:
    if mailbox.key == account.key:
        return True
    if not separator or mailbox.domain != account.domain:
        return False
    local_part, found, _ = mailbox.local_part.partition(separator)
    return bool(found) and local_part.casefold() == account.local_part.casefold()
