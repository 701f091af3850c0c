"""Signing is fast enough to be no reason against it. Counted in CPU time, not on the clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.private_key import generate
from services.keys.sign_message import MessageSigner
from services.keys.state import KeyState
from services.keys.store import Complete, Entry

_HEADER = (
    b"Received: from mail.a.test (mail.a.test [192.0.2.1])\r\n"
    b"\tby mx.a.test with ESMTPS id abcdefghijklm-1; Mon, 23 Nov 2026 03:00:00 +0000\r\n"
    b"From: You <you@a.test>\r\nTo: a@b.test,\r\n  c@d.test\r\nSubject: hello\r\n"
    b"Date: Mon, 23 Nov 2026 03:00:00 +0000\r\nMessage-ID: <1@a.test>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
)
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_BLOCKS, _ROUNDS = 6, 100
"""The fastest block counts: this machine may be lent to others during one."""
_LEAST_PER_SECOND = 1500


async def test_ed25519_signatures_in_a_second_of_one_core() -> None:
    private = generate(KeyType.ED25519, bits=256)
    key = Key(
        domain="a.test",
        selector="s1",
        key_type=KeyType.ED25519,
        bits=256,
        public=private.public,
        created=_NOW,
        state=KeyState.ACTIVE,
    )
    keyring = Keyring()
    keyring.take(Entry("s1", key, private, "1"))
    keyring.take(Complete(frozenset({"s1"})))
    signer = MessageSigner(keyring, lambda: _NOW)
    rates = []
    for _ in range(_BLOCKS):
        began = time.process_time()
        for _ in range(_ROUNDS):
            await signer.sign("a.test", _HEADER, bytes(32))
        rates.append(_ROUNDS / (time.process_time() - began))
    assert max(rates) > _LEAST_PER_SECOND
