"""A client that submits: STARTTLS, a login if there is a password, then mail after mail.

It sends MAIL, RCPT and DATA at once (RFC 2920), so that little of the machine goes to it.
"""

from __future__ import annotations

import smtplib
import ssl
from typing import Final

from bench.mail import RECIPIENT, SUBMITTER, SUBMITTER_HOST
from bench.names import LOOPBACK

_REPLY_SECONDS: Final = 30.0
_ENVELOPE: Final = f"MAIL FROM:<{SUBMITTER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()


class Submitter:
    """One session, while the `with` statement lasts."""

    def __init__(self, port: int, password: str) -> None:
        self._client = smtplib.SMTP(LOOPBACK, port, SUBMITTER_HOST, _REPLY_SECONDS)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a certificate that was made a moment ago
        self._client.starttls(context=context)
        self._client.ehlo()
        if password:
            self._client.login(SUBMITTER, password)
        if self._client.sock is None:
            raise RuntimeError("not connected")
        self._socket = self._client.sock
        self._replies = self._socket.makefile("rb")

    def __enter__(self) -> Submitter:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()
        self._client.close()

    def send_many(self, mail: bytes, count: int) -> None:
        """So many mails, one after the other. Raises `RuntimeError` at an unexpected reply."""
        wire = mail.replace(b"\n", b"\r\n") + b".\r\n"
        for _ in range(count):
            self._socket.sendall(_ENVELOPE)
            for code in (b"250", b"250", b"354"):
                self._expect(code)
            self._socket.sendall(wire)
            self._expect(b"250")

    def _expect(self, code: bytes) -> None:
        reply = self._replies.readline()
        if not reply.startswith(code):
            raise RuntimeError(f"expected {code.decode()}: {reply!r}")
