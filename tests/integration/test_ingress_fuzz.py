"""Sessions made of pieces that are each half right, in any order and cut anywhere.

Runs for `FUZZ_SECONDS` (default 5) seconds; a failure names the seed, and `FUZZ_SEED` repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, running_edge
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected

_SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
_REPLY = re.compile(rb"[2-5][0-9]{2}(?:[ -][^\r\n\0]*)?\r\n")

_PIECES = [
    b"EHLO client.example.net\r\n", b"HELO [192.0.2.1]\r\n", b"EHLO \r\n", b"EHLO a\tb\r\n",
    b"MAIL FROM:<a@example.net>\r\n", b"MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
    b"mail from: <\"a b\"@example.net> RET=FULL ENVID=x+20y\r\n", b"MAIL FROM:<@x:a@b>\r\n",
    b"MAIL FROM:<\xc3\xa4@example.net> SMTPUTF8\r\n", b"MAIL FROM:<a@\xe4>\r\n",
    b"RCPT TO:<you@example.test>\r\n", b"RCPT TO:<you@example.org> NOTIFY=NEVER\r\n",
    b"RCPT TO:<x@elsewhere.example>\r\n", b"RCPT TO:<postmaster>\r\n", b"RCPT TO:<\r\n",
    b"RCPT TO:<you@example.test> ORCPT=rfc822;x\r\n", b"DATA\r\n", b"DATA x\r\n",
    b"BDAT 5\r\nab\r\nc", b"BDAT 4 LAST\r\nab\r\n", b"BDAT 0 LAST\r\n", b"BDAT 3\r\na\nb",
    b"BDAT 99999999\r\n", b"RSET\r\n", b"NOOP\r\n", b"VRFY x\r\n", b"HELP\r\n", b"QUIT\r\n",
    b"AUTH PLAIN AHgAeQ==\r\n", b"AUTH LOGIN\r\n", b"STARTTLS\r\n", b"EXPN x\r\n", b"\r\n", b"\n",
    b"\r", b".", b".\r\n", b"\r\n.\r\n", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"..x\r\n", b"\0",
    b"Subject: x\r\n", b"\r\n\r\ntext\r\n", b"From: a@example.net\r\n", b"\xff\xfe", b"x" * 700,
    b"DKIM-Signature: c=relaxed/relaxed; l=3\r\n", b"Received: x\r\n" * 20, b"GET / HTTP/1.1\r\n",
]  # fmt: skip
_START = [_PIECES[0], _PIECES[4], _PIECES[10], b"DATA\r\n"]


def _session(source: random.Random) -> list[bytes]:
    """What one client sends, in segments."""
    pieces = _START[: source.randrange(5)]
    pieces += source.choices(_PIECES, k=source.randrange(1, 25))
    wire = b"".join(pieces)
    if source.random() < 0.2:
        at = source.randrange(len(wire))
        wire = wire[:at] + source.randbytes(source.randrange(1, 8)) + wire[at + 1 :]
    cuts = sorted(source.randrange(len(wire) + 1) for _ in range(source.randrange(6)))
    edges = [0, *cuts, len(wire)]
    return [wire[start:end] for start, end in pairwise(edges)]


async def _play(edge: RunningEdge, segments: list[bytes]) -> bytes:
    """All that the server said."""
    async with connected(edge.port("plain")) as client:
        for segment in segments:
            client.send(segment)
            await asyncio.sleep(0)
        # The server may have hung up already.
        with contextlib.suppress(OSError):
            client.writer.write_eof()
        return await client.ended()


@pytest.mark.timeout(60 + 2 * _SECONDS)
async def test_sessions_of_any_kind(
    tmp_path: Path, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    deadline = time.monotonic() + _SECONDS
    queued = 0
    async with running_edge(tmp_path, nats_server) as edge:
        while time.monotonic() < deadline:
            segments = _session(random.Random(seed))
            said = await _play(edge, segments)
            story = f"FUZZ_SEED={seed}: {segments!r} was answered {said!r}"
            assert re.fullmatch(rb"(?:%s)*" % _REPLY.pattern, said), story
            assert max(map(len, said.splitlines()), default=0) <= 510, story
            assert not [r for r in caplog.records if r.levelno >= logging.ERROR], story
            queued += said.count(b"queued as")
            found = len(await edge.mails())
            # What ended before its reply could be read may be in the queue too.
            assert found >= queued, story
            if found > 500:
                await edge.clear()
                queued = 0
            seed += 1
        async with connected(edge.port()) as client:
            await client.hello()
            assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")
