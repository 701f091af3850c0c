"""SMTP replies: RFC 5321 §4.2, enhanced status codes of RFC 3463 and RFC 2034, UTF-8 text of RFC
6531 §3.7.4.

A `Reply` is the one value for an outcome that mail sees: what we tell a client, what a peer told
us, what a verdict or a failed attempt comes to. Its constructor refuses anything that could not
stand on the wire as one line, so that no text from outside becomes a second reply. `parse_reply`
takes whatever a peer sent and never raises; what it cannot make sense of is a temporary failure,
because a mail must not bounce over a babbling peer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from services.common.mail.printable import is_one_line, one_line

# RFC 5321 §4.5.3.1.5: 512 octets with code and CRLF; "550 5.123.123 " before the text and CRLF
# after it.
MAX_LINE_OCTETS = 512
MAX_TEXT_OCTETS = MAX_LINE_OCTETS - len("550 5.123.123 ") - len("\r\n")
# More lines than any sane peer sends; a reply without end is none.
MAX_PARSED_LINES = 100
MAX_PARSED_LINE_OCTETS = 2048

_NO_TEXT = "(no text)"
_ENHANCED = re.compile(r"[245](?:\.(?:0|[1-9][0-9]{0,2})){2}", re.ASCII)
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_LEADING_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """Code, enhanced code and one printable line of text.

    `enhanced` is "" only where RFC 2034 has none: always for 3xx, and where wanted for 2xx
    (greeting, EHLO). The constructor raises ValueError for anything else that is not a reply.
    """

    code: int
    enhanced: str
    text: str

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"{self.code} is not the code of a reply")
        if not self._classes_agree():
            raise ValueError(f"enhanced code {self.enhanced!r} does not go with {self.code}")
        if not self.text or not is_one_line(self.text):
            raise ValueError(f"the text {self.text!r} is not one printable line")
        if len(self.text.encode()) > MAX_TEXT_OCTETS:
            raise ValueError(f"the text is longer than {MAX_TEXT_OCTETS} octets")

    def _classes_agree(self) -> bool:
        if not self.enhanced:
            return self.code < 400
        valid = _ENHANCED.fullmatch(self.enhanced) is not None
        return valid and self.enhanced[0] == str(self.code)[0]

    def __str__(self) -> str:
        return self.line()

    def line(self) -> str:
        """The reply as one line without its CRLF."""
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)

    @property
    def is_success(self) -> bool:
        """2xx: done."""
        return self.code < 300

    @property
    def is_intermediate(self) -> bool:
        """3xx: go on (DATA, AUTH)."""
        return 300 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """4xx: later perhaps."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5xx: never."""
        return self.code >= 500


def make_reply(code: int, enhanced: str, text: str) -> Reply:
    """A reply whose text comes from outside or may be long: made printable, cut to fit, never
    empty.
    """
    return Reply(code, enhanced, one_line(text, limit=MAX_TEXT_OCTETS) or _NO_TEXT)


def parse_reply(lines: Sequence[bytes]) -> Reply:
    """The reply in a peer's lines (with or without line ends). Never raises.

    Lines are joined by a space. Without a final line, or with codes of different classes, the reply
    is 451 4.5.0. A missing or disagreeing enhanced code becomes `x.0.0`.
    """
    return _parse_line(lines[0]) if len(lines) == 1 else _parse_lines(lines)


@lru_cache(maxsize=256)
def _parse_line(line: bytes) -> Reply:
    # Peers say the same to every mail: three of the four replies to one are known already.
    return _parse_lines([line])


def _parse_lines(lines: Sequence[bytes]) -> Reply:
    lines = [line[:MAX_PARSED_LINE_OCTETS].rstrip(b"\r\n") for line in lines[:MAX_PARSED_LINES]]
    parsed = [_LINE.fullmatch(line) for line in lines]
    codes = [int(match[1]) for match in parsed if match]
    last = parsed[-1] if parsed else None
    if last is None or last[2] == b"-" or len({code // 100 for code in codes}) != 1:
        raw = " ".join(map(_decoded, lines))
        return make_reply(451, "4.5.0", f"The peer's reply makes no sense: {raw or 'nothing'}")
    texts = [
        _decoded(match[3] or b"" if match else line)
        for match, line in zip(parsed, lines, strict=True)
    ]
    return _assembled(codes[-1], texts)


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace").strip(" ")


def _assembled(code: int, texts: Sequence[str]) -> Reply:
    """A reply from a code and the lines' texts, each perhaps with an enhanced code at its head."""
    enhanced = ""
    plain = []
    for text in texts:
        found = _LEADING_ENHANCED.match(text)
        if found and found[1][0] == str(code)[0]:
            enhanced = enhanced or _without_leading_zeros(found[1])
            text = text[found.end() :]
        plain.append(text)
    if 300 <= code < 400:
        enhanced = ""
    elif not enhanced:
        enhanced = f"{code // 100}.0.0"
    return make_reply(code, enhanced, " ".join(filter(None, plain)))


def _without_leading_zeros(enhanced: str) -> str:
    return ".".join(str(int(part)) for part in enhanced.split("."))


# What the servers say, in one place so that the same event has the same words everywhere. Details
# go to the log.
OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient OK")
START_DATA = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
CLOSING = Reply(221, "2.0.0", "Closing connection")

INTERNAL_ERROR = Reply(451, "4.3.0", "Temporary failure, please try again later")
STORE_UNAVAILABLE = Reply(451, "4.3.2", "Mail cannot be stored just now, please try again later")
STORE_FULL = Reply(452, "4.3.1", "Insufficient system storage, please try again later")
POLICY_UNAVAILABLE = Reply(451, "4.3.5", "Mail cannot be checked just now, please try again later")
SHUTTING_DOWN = Reply(421, "4.3.2", "Server is shutting down, please try again later")
IDLE_TIMEOUT = Reply(421, "4.4.2", "Idle for too long, closing connection")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, please try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients, send the others separately")

BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
UNKNOWN_COMMAND = Reply(500, "5.5.2", "Command not recognized")
BAD_ARGUMENTS = Reply(501, "5.5.4", "Syntax error in arguments")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognized or not supported")
BAD_SENDER_SYNTAX = Reply(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT_SYNTAX = Reply(501, "5.1.3", "Bad recipient address syntax")
UNKNOWN_RECIPIENT = Reply(550, "5.1.1", "Mailbox unavailable")
RELAY_DENIED = Reply(550, "5.7.1", "Relaying denied")
MESSAGE_TOO_BIG = Reply(552, "5.3.4", "Message size exceeds the limit")
HEADER_TOO_BIG = Reply(552, "5.3.4", "Header of the message exceeds the limit")
TOO_MANY_HOPS = Reply(554, "5.4.6", "Too many hops, probably a mail loop")
TLS_REQUIRED = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
AUTHENTICATION_REQUIRED = Reply(530, "5.7.0", "Authentication required")
