"""Wrong line ends in content, found and, where a network is allowed to send them, mended.

RFC 5321 §2.3.8: lines end with CRLF, and CR and LF stand nowhere else. Servers disagree on what a
lone one means, so a mail with one may be one mail here and two at the next hop (smuggling). Hence:
such content is refused as a whole. For listed networks a bare LF is made a CRLF before anything
else looks at the content; a bare CR and NUL are refused from everyone.
"""

from __future__ import annotations

from typing import Final

from services.common.mail.reply import Reply

BARE_LINE_END: Final = Reply(550, "5.6.11", "Bare CR or LF in the message: lines must end in CRLF")
NUL_OCTET: Final = Reply(550, "5.6.0", "NUL octet in the message")


def line_end_fault(data: bytes) -> Reply | None:
    """What is wrong with `data`, which must not end between a CR and its LF."""
    pairs = data.count(b"\r\n")
    if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
        return BARE_LINE_END
    return NUL_OCTET if b"\0" in data else None


def with_crlf(data: bytes) -> bytes:
    """`data` with every bare LF made a CRLF; it must not end between a CR and its LF."""
    if data.count(b"\n") == data.count(b"\r\n"):
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
