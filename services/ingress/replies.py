"""What only the ingress says. What all servers say is in `services.common.mail.reply`."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from services.common.mail.reply import Reply

READY_FOR_TLS: Final = Reply(220, "2.0.0", "Ready to start TLS")
TLS_UNAVAILABLE: Final = Reply(454, "4.7.0", "TLS not available just now")
TLS_ACTIVE: Final = Reply(503, "5.5.1", "TLS is active already")
TLS_NOT_OFFERED: Final = Reply(502, "5.5.1", "STARTTLS is not offered here")

AUTHENTICATED: Final = Reply(235, "2.7.0", "Authentication succeeded")
AUTH_NOT_OFFERED: Final = Reply(503, "5.5.1", "AUTH is not offered here")
AUTH_NEEDS_TLS: Final = Reply(538, "5.7.11", "Encryption required, issue STARTTLS first")
AUTH_MECHANISM_UNKNOWN: Final = Reply(504, "5.5.4", "Authentication mechanism not offered")
AUTH_ABORTED: Final = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_NOT_BASE64: Final = Reply(501, "5.5.2", "Response is not base64")
AUTH_MALFORMED: Final = Reply(501, "5.5.2", "Response does not fit the mechanism")
AUTH_TOO_LONG: Final = Reply(500, "5.5.6", "Authentication response is too long")
AUTH_WRONG: Final = Reply(535, "5.7.8", "User name or password is wrong")
AUTH_UNAVAILABLE: Final = Reply(454, "4.7.0", "Cannot check passwords just now, try again later")
AUTH_BANNED: Final = Reply(454, "4.7.0", "Too many failed logins, please try again later")
ALREADY_AUTHENTICATED: Final = Reply(503, "5.5.1", "Already authenticated")
TOO_MANY_AUTH_FAILURES: Final = Reply(421, "4.7.0", "Too many failed logins, closing connection")

HELO_FIRST: Final = Reply(503, "5.5.1", "Send HELO or EHLO first")
NESTED_MAIL: Final = Reply(503, "5.5.1", "Sender was given already")
MAIL_FIRST: Final = Reply(503, "5.5.1", "Send MAIL first")
RECIPIENT_FIRST: Final = Reply(503, "5.5.1", "Send RCPT first")
NO_VALID_RECIPIENTS: Final = Reply(554, "5.5.1", "No valid recipients")
OTHER_RULES: Final = Reply(452, "4.5.3", "Send this recipient in a transaction of its own")
IN_TRANSACTION: Final = Reply(503, "5.5.1", "Not allowed within a mail transaction")
NON_ASCII_ADDRESS: Final = Reply(553, "5.6.7", "Address needs SMTPUTF8, which MAIL did not ask for")
NOT_YOUR_ADDRESS: Final = Reply(553, "5.7.1", "Sender is not an address of the account")
NOT_YOUR_FROM: Final = Reply(550, "5.7.1", "From is not an address of the account")
TOO_MANY_MESSAGES: Final = Reply(421, "4.7.0", "Too many messages, open another connection")

LINE_TOO_LONG: Final = Reply(500, "5.5.6", "Line is too long")
LINE_END_WRONG: Final = Reply(500, "5.5.2", "Lines must end in CRLF and hold no CR, LF or NUL")
NOT_UTF8: Final = Reply(500, "5.5.2", "Command is not UTF-8")
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "Command not implemented")
NOT_SMTP: Final = Reply(521, "5.5.1", "This is an SMTP server")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "Too many errors, closing connection")
TOO_MUCH_MAIL: Final = Reply(452, "4.3.1", "Too much mail at the moment, please try again later")
TOO_SLOW: Final = Reply(421, "4.4.2", "Data comes too slowly, closing connection")
CANNOT_VERIFY: Final = Reply(
    252, "2.5.2", "Cannot verify, but will take mail and try to deliver it"
)
HELP: Final = Reply(214, "2.0.0", "See RFC 5321")


@lru_cache(maxsize=1024)
def wire(reply: Reply) -> bytes:
    """A reply as it is sent. Most replies are one of a few dozen."""
    return f"{reply.line()}\r\n".encode()


def queued(message_id: str) -> Reply:
    """The promise: the mail is ours from now on."""
    return Reply(250, "2.0.0", f"Ok: queued as {message_id}")
