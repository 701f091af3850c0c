"""The mails that end-to-end tests send, and what must come out at the other end."""

from __future__ import annotations

import random
from email.message import EmailMessage

_BINARY = random.Random(5).randbytes(3_600_000)


def plain(marker: str, author: str) -> bytes:
    """1 KB of text."""
    lines = [f"line {n}: the quick brown fox jumps over the lazy dog" for n in range(16)]
    return _mail(marker, author, "\n".join(lines))


def with_attachment(marker: str, author: str) -> bytes:
    """5 MB: a text and a binary file in base64."""
    message = EmailMessage()
    message["From"] = author
    message["To"] = "you@example.test"
    message["Subject"] = marker
    message["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    message["Message-ID"] = f"<{marker}@example.org>"
    message.set_content("See the attachment.\n")
    message.add_attachment(
        _BINARY, maintype="application", subtype="octet-stream", filename="a.bin"
    )
    return message.as_bytes().replace(b"\n", b"\r\n")


def eight_bit(marker: str, author: str) -> bytes:
    """UTF-8 text with an 8-bit body."""
    body = "Grüße aus Köln, 日本語, emoji 🦊\nÄÖÜ äöü ß\n"
    fields = (
        "MIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: 8bit\n"
    )
    return _mail(marker, author, body, fields)


def dots(marker: str, author: str) -> bytes:
    """Lines that dot-stuffing is about."""
    return _mail(marker, author, ".\n..\n...\n.leading\nmiddle.dot\n.\n\n.\nend.\n..\nlast")


SAMPLES = {"1 KB": plain, "5 MB": with_attachment, "8-bit": eight_bit, "dots": dots}


def _mail(marker: str, author: str, body: str, more_fields: str = "") -> bytes:
    text = (
        f"From: {author}\n"
        "To: you@example.test\n"
        f"Subject: {marker}\n"
        "Date: Mon, 02 Nov 2026 10:00:00 +0000\n"
        f"Message-ID: <{marker}@example.org>\n"
        f"{more_fields}\n{body}\n"
    )
    return text.replace("\n", "\r\n").encode()


def below_trace_fields(stored: bytes, sent: bytes) -> bool:
    """True if what arrived is what was sent, with trace fields on top and nothing else."""
    wanted, found = sent.replace(b"\r\n", b"\n"), stored.replace(b"\r\n", b"\n")
    if not found.endswith(wanted):
        return False
    names = {
        line.split(b":")[0].lower()
        for line in found[: -len(wanted)].splitlines()
        if not line.startswith((b" ", b"\t"))
    }
    return names <= TRACE_FIELDS and b"received" in names


TRACE_FIELDS = {
    b"return-path",
    b"delivered-to",
    b"received",
    b"received-spf",
    b"authentication-results",
    b"x-spam-flag",
    b"x-spam-status",
    b"x-gatepost-verdict",
}
