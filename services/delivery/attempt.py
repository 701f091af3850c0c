"""One attempt at a record, whatever its route: to mailboxes here, or signed and to a next hop."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.source import ConfigSource
from services.common.jetstream import StoreError
from services.common.log import ERROR, event
from services.common.mail.reply import Reply
from services.common.queue.record import (
    mail_parameters,
    pending,
    recipient_parameters,
)
from services.delivery.content import Content, ContentError
from services.delivery.local import LocalDelivery
from services.delivery.mx_places import PoliciesUnreadable
from services.delivery.outcome import Result, result_of
from services.delivery.remote import RemoteDelivery
from services.delivery.route import HopRoute, LocalRoute, MxRoute, Route
from services.delivery.signing import Signer, SigningUnavailable
from services.delivery.smtp.transaction import Addressee, Mail
from services.delivery.smtp.wire import LineEnds
from services.delivery.tls.report import TlsReport

CONTENT_UNREADABLE: Final = Reply(451, "4.3.0", "The content of the mail cannot be read just now")

_log = logging.getLogger(__name__)


class Lacking(StrEnum):
    """What an attempt cannot begin without. The words are label values of metrics."""

    SIGNATURE = "unsigned"
    POLICIES = "policies"


class NotAttempted(Exception):
    """Nothing was tried, and nothing is to be counted. The text says why, for people."""

    def __init__(self, text: str, lacking: Lacking) -> None:
        super().__init__(text)
        self.lacking = lacking


@dataclass(slots=True)
class Attempt:
    """What came of an attempt."""

    results: list[Result]
    """One for each pending recipient, in their order."""
    addresses: list[str] = field(default_factory=list)
    next_hop: str = ""
    tls_version: str = ""
    tls: list[TlsReport] = field(default_factory=list)
    """What became of encryption with the mail exchanges that were tried."""
    failure: Reply | None = None
    """Why the next hop could not be talked to at all; None if it could."""


def without(record: QueuedMessage, decided: Mapping[str, Result]) -> QueuedMessage:
    """The record with only those recipients pending that are not decided already."""
    if not decided:
        return record
    rest = QueuedMessage()
    rest.CopyFrom(record)
    for recipient in pending(rest):
        if recipient.address in decided:
            recipient.state = RecipientState.RECIPIENT_STATE_FAILED
    return rest


def completed(attempt: Attempt, record: QueuedMessage, decided: Mapping[str, Result]) -> Attempt:
    """An attempt at the others, with the results of those that were decided already."""
    if not decided:
        return attempt
    made = iter(attempt.results)
    addresses = [recipient.address for recipient in pending(record)]
    results = [decided[each] if each in decided else next(made) for each in addresses]
    return dataclasses.replace(attempt, results=results, addresses=addresses)


class Attempts:
    """Makes attempts."""

    def __init__(
        self, source: ConfigSource, *, local: LocalDelivery, remote: RemoteDelivery, signer: Signer
    ) -> None:
        self._source = source
        self._local = local
        self._remote = remote
        self._signer = signer

    async def make(self, route: Route, record: QueuedMessage, content: Content) -> Attempt:
        """Try to deliver to the pending recipients. Raises `NotAttempted`."""
        recipients = pending(record)
        addresses = [recipient.address for recipient in recipients]
        try:
            match route:
                case LocalRoute(directory=directory):
                    return Attempt(await self._deposits(directory, record, content), addresses)
                case HopRoute() | MxRoute():
                    return await self._outgoing(route, record, content)
        except (ContentError, StoreError) as error:
            return Attempt([_unreadable(error)] * len(recipients), addresses)

    async def _deposits(
        self, directory: Path, record: QueuedMessage, content: Content
    ) -> list[Result]:
        """A result for each recipient. Each reads the content, and fails, for itself alone."""

        async def deposited(recipient: Recipient) -> Result:
            try:
                return await self._local.deliver(directory, record, content, recipient)
            except (ContentError, StoreError) as error:
                return _unreadable(error)

        # All have ended before an error of ours is raised: none goes on with nobody watching.
        ended = await asyncio.gather(*map(deposited, pending(record)), return_exceptions=True)
        results: list[Result] = []
        for each in ended:
            if isinstance(each, BaseException):
                raise each
            results.append(each)
        return results

    async def _outgoing(
        self, route: HopRoute | MxRoute, record: QueuedMessage, content: Content
    ) -> Attempt:
        blocks, size = _on_the_wire(content), record.size
        parameters = mail_parameters(record)
        if self._source.current.delivery.dkim.enabled:
            try:
                signatures = await self._signer.signatures(record, blocks)
            except SigningUnavailable as error:
                text = f"cannot be signed just now: {error}"
                raise NotAttempted(text, Lacking.SIGNATURE) from error
            if signatures:
                blocks, size = _prefixed(signatures, blocks), size + len(signatures)
                parameters = dataclasses.replace(parameters, size=size)
        mail = Mail(
            reverse_path=record.sender,
            parameters=parameters,
            size=size,
            blocks=blocks,
            encryption_optional=record.encryption_optional,
        )
        addressees = [
            Addressee(recipient.address, recipient_parameters(recipient))
            for recipient in pending(record)
        ]
        try:
            came = await self._remote.deliver(route, mail, list(dict.fromkeys(addressees)))
        except PoliciesUnreadable as error:
            text = f"the stored MTA-STS policies cannot be read just now: {error}"
            raise NotAttempted(text, Lacking.POLICIES) from error
        return Attempt(
            [came.results[addressee] for addressee in addressees],
            [addressee.address for addressee in addressees],
            came.next_hop,
            came.tls_version,
            came.tls,
            came.failure,
        )


def _unreadable(error: ContentError | StoreError) -> Result:
    event(_log, ERROR, "content cannot be read", reason=str(error))
    return result_of(CONTENT_UNREADABLE)


Blocks = Callable[[], AsyncGenerator[bytes, None]]


def _on_the_wire(content: Content) -> Blocks:
    """The content with line ends as they may be sent, which is also what is signed."""

    async def blocks() -> AsyncGenerator[bytes, None]:
        line_ends = LineEnds()
        async for block in content.blocks():
            yield line_ends.normalised(block)
        if rest := line_ends.end():
            yield rest

    return blocks


def _prefixed(head: bytes, rest: Blocks) -> Blocks:
    async def blocks() -> AsyncGenerator[bytes, None]:
        yield head
        async for block in rest():
            yield block

    return blocks
