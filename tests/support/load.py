"""A bounded load of mails from several sessions, with every answer noted in the ledger."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from tests.support.ledger import HEADER, Ledger

_CONNECT_PAUSE_SECONDS = 0.05
_REPLY_DEADLINE_SECONDS = 30.0
_ANSWERED_BADLY = 400


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one mail is to be."""

    sender: str
    recipients: tuple[str, ...]
    octets: int = 1500
    unwanted: bool = False
    """Policy has to refuse it."""


@dataclass(slots=True, kw_only=True)
class Load:
    """Sends until `wanted` mails were accepted or the time is over."""

    port: int
    ledger: Ledger
    parcel: Callable[[int], Parcel]
    """The mail of a number, from 1 on."""
    helo: str
    wanted: int
    sessions: int = 4
    seconds: float = 120.0
    pause_s: float = 0.0
    """After each mail of a session."""
    name: str = "mail"
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _end: float = 0.0
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send from `sessions` threads and return when all are done."""
        self._end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self._work) for _ in range(self.sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Have `run` end after the mails in hand."""
        self._stopped.set()

    def _enough(self) -> bool:
        if self._stopped.is_set():
            return True
        return len(self.ledger.accepted) >= self.wanted or time.monotonic() > self._end

    def _work(self) -> None:
        client: smtplib.SMTP | None = None
        while not self._enough():
            client = client or self._connect()
            if client is None or not self._send(client):
                client = None
            self._stopped.wait(self.pause_s)
        if client is not None:
            client.close()

    def _connect(self) -> smtplib.SMTP | None:
        """A session, or None: not being able to connect is no outcome of a mail."""
        try:
            client = smtplib.SMTP("127.0.0.1", self.port, self.helo, _REPLY_DEADLINE_SECONDS)
            client.ehlo()
        except (OSError, smtplib.SMTPException):
            time.sleep(_CONNECT_PAUSE_SECONDS)
            return None
        return client

    def _send(self, client: smtplib.SMTP) -> bool:
        """Send one mail. False if the session is of no more use."""
        mail_id, parcel, body = self._new_mail()
        self.ledger.sent(mail_id, body, parcel.recipients, unwanted=parcel.unwanted)
        head = f"From: {parcel.sender}\nSubject: {mail_id}\n{HEADER}: {mail_id}\n\n".encode()
        dot_sent = False
        try:
            for code in self._envelope(client, parcel):
                if code >= _ANSWERED_BADLY:
                    self.ledger.was_refused(mail_id, code)
                    client.rset()
                    return True
            dot_sent = True
            code, _ = client.data((head + body).replace(b"\n", b"\r\n"))
            if code == 250:
                self.ledger.was_accepted(mail_id)
            else:
                self.ledger.was_refused(mail_id, code)
        except smtplib.SMTPDataError as error:
            self.ledger.was_refused(mail_id, error.smtp_code)
        except (OSError, smtplib.SMTPException):
            if dot_sent:
                self.ledger.is_unknown(mail_id)
            client.close()
            return False
        return True

    def _envelope(self, client: smtplib.SMTP, parcel: Parcel) -> Iterator[int]:
        """The codes that MAIL and each RCPT are answered with."""
        yield client.mail(parcel.sender)[0]
        for recipient in parcel.recipients:
            yield client.rcpt(recipient)[0]

    def _new_mail(self) -> tuple[str, Parcel, bytes]:
        with self._lock:
            self._next += 1
            number = self._next
        parcel = self.parcel(number)
        text = Random(number).randbytes(parcel.octets // 2).hex()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return f"{self.name}-{number}", parcel, "\n".join(lines).encode() + b"\n"
