"""The line to one client, as the command loop sees it."""

from __future__ import annotations

from typing import Protocol

from services.common.mail.reply import Reply
from services.common.mail.trace import TlsSession


class SessionEnd(Exception):
    """The session is over: `end` is the label for metrics, `reply` the last thing to say."""

    def __init__(self, end: str, reply: Reply | None = None) -> None:
        super().__init__(end)
        self.end = end
        self.reply = reply


class Wire(Protocol):
    """Lines and blocks in, octets out. What is sent waits until `flush` or a need for input."""

    async def command_line(self) -> bytes:
        """The next command with its line end. Raises `LineTooLong`, `EndOfInput`."""

    def waiting_line(self) -> bytes:
        """The next line if it is here already, left where it is; otherwise nothing."""

    async def answer_line(self) -> bytes:
        """A line that is no command: the client's answer in AUTH. Raises as `command_line`."""

    async def block(self, most: int | None = None) -> bytes:
        """Whatever the client has sent, at least an octet, and no more than `most`.

        Raises `EndOfInput`.
        """

    def unread(self, data: bytes) -> None:
        """Put back what was read too far."""

    def send(self, data: bytes) -> None:
        """Have octets sent with the next `flush`."""

    async def flush(self) -> None:
        """Send what waits. Raises `EndOfInput` when the connection is gone."""

    @property
    def offers_tls(self) -> bool:
        """Whether there is a certificate for STARTTLS."""

    async def start_tls(self) -> TlsSession:
        """The handshake, with everything forgotten that came before it. Raises `SessionEnd`."""
