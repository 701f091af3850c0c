"""The mail that is sent, as ordinary mail looks: signed by the sender's domain where it comes in,
unsigned where it is submitted.
"""

from __future__ import annotations

from random import Random
from typing import Final

from bench.names import SENDER_DOMAIN
from tests.support import dkim_signer

SENDER: Final = f"news@{SENDER_DOMAIN}"
RECIPIENT_DOMAIN: Final = "relay.test"
RECIPIENT: Final = f"you@{RECIPIENT_DOMAIN}"
SUBMITTER_DOMAIN: Final = "example.test"
SUBMITTER: Final = f"you@{SUBMITTER_DOMAIN}"
SUBMITTER_HOST: Final = f"desk.{SUBMITTER_DOMAIN}"
SELECTOR: Final = "bench"
_KEY_BITS: Final = 2048
_LINE: Final = 72
_WORDS: Final = ("mail", "is", "sent", "taken", "kept", "and", "delivered", "by", "some", "server")
_SIGNED: Final = (
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
)


def dkim_record() -> tuple[str, str]:
    """The name and the text of the record that the signature needs."""
    key = dkim_signer.rsa_key(_KEY_BITS)
    return f"{SELECTOR}._domainkey.{SENDER_DOMAIN}", dkim_signer.record(key)


def signed_mail(octets: int) -> bytes:
    """A mail of about this size with a valid signature; lines end in LF."""
    header = f"""\
Received: from desk.{SENDER_DOMAIN} (desk.{SENDER_DOMAIN} [192.0.2.7])
\tby mail.{SENDER_DOMAIN} with ESMTPSA id 4Xk2Lm0bZ1z9sQ;
\tMon, 23 Nov 2026 03:00:00 +0000
From: News <{SENDER}>
To: You <{RECIPIENT}>
Subject: What mail servers do all day
Date: Mon, 23 Nov 2026 03:00:00 +0000
Message-ID: <20261123030000.4711@{SENDER_DOMAIN}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
User-Agent: bench/1
"""
    unsigned = f"{header}\n"
    overhead = len(_sign(unsigned + "x\n"))
    return _sign(unsigned + _text(max(octets - overhead, _LINE))).encode()


def submitted_mail(octets: int) -> bytes:
    """A mail of about this size as a mail program submits it; lines end in LF."""
    header = f"""\
From: You <{SUBMITTER}>
To: You <{RECIPIENT}>
Subject: What mail programs do all day
Date: Mon, 23 Nov 2026 03:00:00 +0000
Message-ID: <20261123030000.4712@{SUBMITTER_DOMAIN}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
User-Agent: bench/1
"""
    return f"{header}\n{_text(octets - len(header))}".encode()


def _sign(message: str) -> str:
    key = dkim_signer.rsa_key(_KEY_BITS)
    return dkim_signer.sign(message, key, signed=_SIGNED, d=SENDER_DOMAIN, s=SELECTOR)


def _text(octets: int) -> str:
    random, lines, length = Random(octets), list[str](), 0  # noqa: S311 - text
    while length < octets:
        line = ""
        while len(line) < _LINE:
            line += f"{random.choice(_WORDS)} "
        lines.append(line[:_LINE].rstrip())
        length += len(lines[-1]) + 2  # with CRLF, as it is sent
    return "\n".join(lines) + "\n"
