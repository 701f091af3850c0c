"""Delivery to the mailboxes of this house: RFC 5321 §4.4 (Return-Path at final delivery)."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient
from services.common.config.delivery import Mailbox as MailboxSettings
from services.common.config.source import ConfigSource
from services.common.log import WARNING, event
from services.common.mail.address import Mailbox
from services.common.mail.trace import return_path_field
from services.common.queue.record import mailbox_of, sender_of
from services.delivery.content import Content
from services.delivery.maildir import STORED, Deposit, file_name, mailbox_path, reply_to
from services.delivery.outcome import Result, result_of

THREADS: Final = 32
"""Deposits at a time. They mostly wait for the disk, which syncs several as fast as one."""

_log = logging.getLogger(__name__)


class LocalDelivery:
    """Puts mail into Maildirs."""

    def __init__(self, source: ConfigSource) -> None:
        self._source = source
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mailbox")

    async def deliver(
        self, directory: Path, record: QueuedMessage, content: Content, recipient: Recipient
    ) -> Result:
        """Deliver to one recipient. Raises what reading the content raises."""
        mailbox = mailbox_of(recipient)
        head = return_path_field(sender_of(record)) + f"Delivered-To: {mailbox}\r\n".encode()
        octets = len(head) + record.size
        deposit = Deposit(
            mailbox_path(directory, mailbox),
            file_name(record.message_id, record.accept_time.seconds, octets),
            junk=record.spam,
            octets=octets,
            quota=quota_of(self._source.current.mailbox, mailbox),
        )
        try:
            await self._deposit(deposit, head, content)
        except OSError as error:
            event(_log, WARNING, "mailbox not written", recipient=mailbox, reason=str(error))
            return result_of(reply_to(error))
        return result_of(STORED)

    async def _deposit(self, deposit: Deposit, head: bytes, content: Content) -> None:
        inline = content.inline
        if inline is not None:
            await asyncio.wrap_future(self._threads.submit(_whole, deposit, head, inline))
            return
        call = self._threads.submit(deposit.begin)
        try:
            await asyncio.wrap_future(call)
            call = self._threads.submit(deposit.write, head)
            async for block in content.blocks():
                await asyncio.wrap_future(call)
                call = self._threads.submit(deposit.write, block)
            await asyncio.wrap_future(call)
            call = self._threads.submit(deposit.commit)
            await asyncio.wrap_future(call)
        except BaseException:
            # Whoever is cancelled leaves a thread in the middle of a call, with the file open.
            call.add_done_callback(lambda _: deposit.abandon())
            raise

    async def close(self) -> None:
        """Let go of the threads; what they have in hand is finished."""
        await asyncio.to_thread(self._threads.shutdown)


def quota_of(settings: MailboxSettings, mailbox: Mailbox) -> int:
    """What a mailbox may hold in octets; 0: no limit."""
    return settings.quotas.get(mailbox.key, settings.quota)


def _whole(deposit: Deposit, head: bytes, content: bytes) -> None:
    """A small mail in one go: a thread costs more than the work."""
    try:
        deposit.begin()
        deposit.write(head + content)
        deposit.commit()
    except BaseException:
        deposit.abandon()
        raise
