"""Sessions and addresses made of pieces that are each half right, in any order and cut anywhere.

Each runs for `FUZZ_SECONDS` seconds; a failure names the seed, and `FUZZ_SEED` repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.common.mail.address import (
    AddressError,
    Mailbox,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
)
from services.common.mail.envelope import (
    Extension,
    ParameterError,
    parse_mail_parameters,
    parse_recipient_parameters,
)
from services.common.queue.subjects import QUEUE_STREAM
from services.ingress.line_ends import line_end_fault
from tests.support.edge import RunningEdge, listener_values, running_edge
from tests.support.nats_server import NatsServer
from tests.support.odd_sessions import OddSession, odd_path, odd_session
from tests.support.smtp_client import Client, connected

_SHORT = float(os.environ.get("FUZZ_SECONDS", "5"))
_LONG = 45.0
_SHORTLY = pytest.param(_SHORT, id="short", marks=pytest.mark.timeout(60 + 2 * _SHORT))
_LONGER = pytest.param(
    _LONG, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(60 + 2 * _LONG)]
)
# What is refused says why in an enhanced code of the same class too (RFC 2034).
_REPLY = re.compile(
    rb"(?:[23][0-9]{2}[ -]|([45])[0-9]{2} \1\.[0-9]{1,3}\.[0-9]{1,3} )[^\r\n\0]*\r\n"
)
_ID = re.compile(rb"queued as [a-z0-9-]+")
_MANY = 300
"""Mails in the queue, after which they are looked at and removed."""


def _seeds(seconds: float) -> Iterator[int]:
    """Seeds until the time is over; the one to repeat, if one is named."""
    if seed := int(os.environ.get("FUZZ_SEED", "0")):
        yield seed
        return
    seed = random.SystemRandom().randrange(1, 2**32)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield seed
        seed += 1


async def _play(edge: RunningEdge, listener: str, segments: Sequence[bytes]) -> bytes:
    """All that the server said."""
    tls = listener == "submissions"
    async with connected(edge.port(listener), tls=tls) as client:
        for segment in segments:
            client.send(segment)
            await asyncio.sleep(0)
        if tls:
            # TLS has no half-closed connections: what ends most sessions is said, and the others
            # are left alone.
            client.send(b"\r\n.\r\nBDAT x\r\n")
            return await _heard(client, seconds=1)
        # The server may have hung up already.
        with contextlib.suppress(OSError):
            client.writer.write_eof()
        return await client.ended()


async def _heard(client: Client, *, seconds: float) -> bytes:
    """Whole lines that come within this time."""
    said = b""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(seconds):
            while block := await client.reader.read(65536):
                said += block
    return said[: said.rfind(b"\n") + 1]


def _without_ids(said: bytes) -> bytes:
    return _ID.sub(b"queued", said)


class _Watch:
    """What must hold whatever clients do."""

    def __init__(self, edge: RunningEdge, caplog: pytest.LogCaptureFixture) -> None:
        self._edge = edge
        self._caplog = caplog
        self._promised = 0

    async def play(self, session: OddSession) -> None:
        """One session, and what it must not have done. Every second one is cut differently too."""
        said = await self._said(session, session.segments)
        if session.listener != "submissions" and len(session.segments) % 2:
            whole = await self._said(session, [session.octets])
            # Nothing is read from a connection that is reset: after QUIT nobody waits for more.
            if whole and said:
                assert _without_ids(whole) == _without_ids(said)
        state = await self._edge.store.stream_state(QUEUE_STREAM)
        # What ended before its reply could be read may be in the queue too.
        assert state is not None
        assert state.messages >= self._promised
        if state.messages > _MANY:
            await self._look_at_mails()

    async def _said(self, session: OddSession, segments: Sequence[bytes]) -> bytes:
        said = await _play(self._edge, session.listener, segments)
        lines = said.splitlines(keepends=True)
        assert all(_REPLY.fullmatch(line) for line in lines), said
        assert max(map(len, lines), default=0) <= 512, said
        assert not [r for r in self._caplog.records if r.levelno >= logging.ERROR], said
        self._promised += said.count(b"queued as")
        return said

    async def _look_at_mails(self) -> None:
        for mail in await self._edge.mails():
            assert line_end_fault(mail.content) is None, mail.content
        await self._edge.clear()
        self._promised = 0


@pytest.mark.parametrize("seconds", [_SHORTLY, _LONGER])
async def test_sessions_of_any_kind(
    seconds: float, tmp_path: Path, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    proxied: dict[str, Any] = {
        "name": "proxied",
        "address": "127.0.0.1",
        "port": 0,
        "tls": "none",
        "proxy_protocol": {"trusted": ["127.0.0.0/8"]},
    }
    limits = {"exempt_networks": ["0.0.0.0/0", "::/0"]}
    config = {"smtp": {"listeners": [*listener_values(), proxied], "limits": limits}}
    async with running_edge(tmp_path, nats_server, config) as edge:
        watch = _Watch(edge, caplog)
        for seed in _seeds(seconds):
            session = odd_session(seed)
            try:
                await watch.play(session)
            except (AssertionError, TimeoutError, OSError) as error:
                raise AssertionError(f"FUZZ_SEED={seed}: {session}: {error!r}") from error
        async with connected(edge.port()) as client:
            await client.hello()
            assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")


_PARSERS = (
    (parse_reverse_path, partial(parse_mail_parameters, offered=tuple(Extension))),
    (
        parse_forward_path,
        partial(parse_recipient_parameters, offered=tuple(Extension), smtputf8=True),
    ),
)


def _check_path(text: str) -> None:
    """It is refused, or it is one address in one spelling."""
    for parse_path, parse_parameters in _PARSERS:
        try:
            mailbox, rest = parse_path(text, smtputf8=True)
        except AddressError:
            continue
        with contextlib.suppress(ParameterError):
            parse_parameters(rest)
        if mailbox is not None:
            _check_mailbox(mailbox)


def _check_mailbox(mailbox: Mailbox) -> None:
    printed = str(mailbox)
    assert parse_mailbox(printed, smtputf8=True) == mailbox
    assert printed.isprintable()
    assert printed.rpartition("@")[2] in (mailbox.domain, printed)
    assert len(printed.encode()) <= 254 + 64


@pytest.mark.parametrize("seconds", [_SHORTLY])
def test_addresses_of_any_kind(seconds: float) -> None:
    for seed in _seeds(seconds):
        text = odd_path(seed)
        try:
            _check_path(text)
        except Exception as error:
            raise AssertionError(f"FUZZ_SEED={seed}: {text!r}: {error!r}") from error
