"""The SMTP dialogue of one session, without its input and output: commands in, replies out.

RFC 5321 §4.1 and §4.3. The state is the `Session`, and the `Transaction` while there is one; which
command is allowed when:

    HELO, EHLO, RSET, NOOP, VRFY, HELP, QUIT   always; HELO, EHLO and RSET end a transaction
    STARTTLS                                   outside a transaction, once
    AUTH                                       outside a transaction, over TLS, once
    MAIL                                       after HELO, outside a transaction
    RCPT                                       within a transaction
    DATA, BDAT                                 within a transaction with a recipient; they end it

`services.ingress.engine` reads and writes; nothing in here knows of sockets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Histogram

from services.common import log
from services.common.config.model import Config
from services.common.config.source import ConfigSource
from services.common.mail.address import parse_helo
from services.common.mail.reply import (
    BAD_ARGUMENTS,
    CLOSING,
    OK,
    SENDER_OK,
    START_DATA,
    Reply,
)
from services.common.mail.trace import TlsSession
from services.ingress.acceptance import accept
from services.ingress.capacity import Capacity
from services.ingress.extensions import ehlo_lines, ehlo_reply
from services.ingress.intake import Intake, IntakeLimits
from services.ingress.login import Login
from services.ingress.login_guard import LoginGuard
from services.ingress.mail_command import begin
from services.ingress.mail_store import MailStore
from services.ingress.policy import Policy
from services.ingress.recipients import add_recipients
from services.ingress.replies import (
    CANNOT_VERIFY,
    HELP,
    IN_TRANSACTION,
    MAIL_FIRST,
    NESTED_MAIL,
    NO_VALID_RECIPIENTS,
    RECIPIENT_FIRST,
    TLS_ACTIVE,
    TLS_NOT_OFFERED,
)
from services.ingress.sasl import Ask
from services.ingress.transaction import Session, Transaction

MESSAGES = Counter(
    "gatepost_ingress_messages_total",
    "Messages whose content came in whole, by listener and what they were answered.",
    ["listener", "outcome"],  # accepted, deferred, refused
)
MESSAGE_BYTES = Histogram(
    "gatepost_ingress_message_bytes",
    "Size of the contents that came in whole.",
    buckets=(1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6, 256e6),
)
REPLY_SECONDS = Histogram(
    "gatepost_ingress_final_reply_seconds",
    "Time between the end of a content and the reply to it.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

_OUTCOMES: Final = {2: "accepted", 4: "deferred", 5: "refused"}


class Edge:
    """What all sessions of the process share."""

    def __init__(
        self, source: ConfigSource, policy: Policy, store: MailStore, guard: LoginGuard
    ) -> None:
        self._source = source
        self.policy = policy
        self.store = store
        self.guard = guard
        self.capacity = Capacity(lambda: source.current.smtp.limits)

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return self._source.current


class Dialogue:
    """One session's commands. Arguments are the text after the verb, without white space around."""

    def __init__(self, edge: Edge, session: Session, *, starttls: bool) -> None:
        self.session = session
        self.transaction: Transaction | None = None
        self._edge = edge
        self._starttls = starttls
        self._login = Login(session, edge.policy, edge.guard)

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return self._edge.config

    @property
    def mends_line_ends(self) -> bool:
        """Whether this client's content may have lines that end in a bare LF."""
        address = self.session.address
        return any(address in network for network in self.config.smtp.bare_newline_networks)

    def reset(self) -> None:
        """End the transaction, if there is one."""
        if self.transaction is not None:
            self.transaction = None
            log.message_id.set("")

    # --- the session ----------------------------------------------------------------------------

    def helo(self, argument: str) -> Reply:
        """HELO (RFC 5321 §4.1.1.1)."""
        if not argument:
            return BAD_ARGUMENTS
        self._greeted(argument, esmtp=False)
        return Reply(250, "", self.config.smtp.hostname)

    def ehlo(self, argument: str) -> Reply | bytes:
        """EHLO: the extensions on the wire."""
        if not argument:
            return BAD_ARGUMENTS
        self._greeted(argument, esmtp=True)
        return ehlo_reply(ehlo_lines(self.session, self.config.smtp, starttls=self._starttls))

    def _greeted(self, name: str, *, esmtp: bool) -> None:
        self.reset()
        self.session.helo = parse_helo(name)
        self.session.esmtp = esmtp

    def rset(self, argument: str) -> Reply:
        """RSET."""
        if argument:
            return BAD_ARGUMENTS
        self.reset()
        return OK

    def noop(self, _: str) -> Reply:
        """NOOP; its argument means nothing (RFC 5321 §4.1.1.9)."""
        return OK

    def vrfy(self, argument: str) -> Reply:
        """VRFY tells nothing (RFC 5321 §7.3)."""
        return CANNOT_VERIFY if argument else BAD_ARGUMENTS

    def help(self, _: str) -> Reply:
        """HELP."""
        return HELP

    def quit(self, argument: str) -> Reply:
        """QUIT; the session is over if it succeeds."""
        if argument:
            return BAD_ARGUMENTS
        self.reset()
        return CLOSING

    def starttls_obstacle(self, argument: str) -> Reply | None:
        """Why STARTTLS is not possible now; None if it is (RFC 3207 §4)."""
        if argument:
            return BAD_ARGUMENTS
        if self.session.tls is not None:
            return TLS_ACTIVE
        if not self._starttls:
            return TLS_NOT_OFFERED
        return None if self.transaction is None else IN_TRANSACTION

    def tls_started(self, tls: TlsSession) -> None:
        """TLS stands: what was said before it is forgotten (RFC 3207 §4.2)."""
        self.reset()
        self.session.tls = tls
        self.session.helo = None
        self.session.esmtp = False

    async def auth(self, argument: str, ask: Ask) -> Reply:
        """AUTH (RFC 4954 §4)."""
        if self.transaction is not None:
            return IN_TRANSACTION
        return await self._login.auth(argument, ask)

    # --- the transaction ------------------------------------------------------------------------

    def mail(self, argument: str) -> Reply:
        """MAIL."""
        if self.transaction is not None:
            return NESTED_MAIL
        begun = begin(argument, session=self.session, config=self.config, store=self._edge.store)
        if isinstance(begun, Reply):
            return begun
        self.transaction = begun
        log.message_id.set(begun.message_id)
        return SENDER_OK

    @property
    def recipient_room(self) -> int:
        """How many more recipients the transaction may have, at least 1."""
        if self.transaction is None:
            return 1
        return max(1, self.config.smtp.limits.recipients - len(self.transaction.recipients))

    async def rcpt(self, arguments: Sequence[str]) -> list[Reply]:
        """RCPT commands that came together, no more than there is room for; a reply to each."""
        if self.transaction is None:
            return [MAIL_FIRST] * len(arguments)
        self.transaction.asked += len(arguments)
        return await add_recipients(
            arguments,
            transaction=self.transaction,
            session=self.session,
            config=self.config,
            policy=self._edge.policy,
        )

    def data(self, argument: str) -> Reply:
        """DATA: 354 if content may come."""
        if argument:
            return BAD_ARGUMENTS
        return self.content_obstacle() or START_DATA

    def content_obstacle(self) -> Reply | None:
        """Why no content may come now."""
        if self.transaction is None:
            return MAIL_FIRST
        if self.transaction.recipients:
            return None
        return NO_VALID_RECIPIENTS if self.transaction.asked else RECIPIENT_FIRST

    def open_intake(self) -> Intake:
        """What the content of the transaction goes into."""
        if self.transaction is None:
            raise ValueError("content without a transaction")
        message_id, store = self.transaction.message_id, self._edge.store
        smtp = self.config.smtp
        limits = IntakeLimits(
            octets=smtp.max_message_size,
            header_octets=smtp.limits.header_size,
            received_fields=smtp.limits.received_fields,
            line_octets=smtp.limits.line_length,
        )
        room = self._edge.capacity.reserve(self.session.address)
        return Intake(limits, lambda: store.open_spool(message_id), room)

    async def content_ended(self, intake: Intake) -> Reply:
        """The content is there: is the mail ours? Ends the transaction."""
        started = time.monotonic()
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            raise ValueError("content without a transaction")
        try:
            reply = await self._taken(intake, transaction)
        finally:
            log.message_id.set("")
        if reply.is_success:
            self.session.accepted += 1
        MESSAGES.labels(self.session.listener.name, _OUTCOMES[reply.code // 100]).inc()
        MESSAGE_BYTES.observe(intake.size)
        REPLY_SECONDS.observe(time.monotonic() - started)
        return reply

    async def _taken(self, intake: Intake, transaction: Transaction) -> Reply:
        content = await intake.finish()
        if isinstance(content, Reply):
            return content
        return await accept(
            content,
            transaction=transaction,
            session=self.session,
            config=self.config,
            policy=self._edge.policy,
            store=self._edge.store,
        )
