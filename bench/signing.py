"""How many mails one core signs in a second, beside what the library's arithmetic alone would do.

    python -m bench.signing [SECONDS]

Counts CPU time, in short turns of the one and the other, and takes the middle turn of each, so that
what else the machine does is in neither figure or in both. One row for each kind of key: a mail
signed by it from the header block to the finished fields, and the bare arithmetic.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from statistics import median

from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.private_key import PrivateKey, generate
from services.keys.sign_message import MessageSigner
from services.keys.state import KeyState
from services.keys.store import Complete, Entry

_DOMAIN = "example.test"
_HEADER = (
    b"Received: from mail.example.test (mail.example.test [192.0.2.1])\r\n"
    b"\tby mx.example.test with ESMTPS id abcdefghijklm-1; Mon, 23 Nov 2026 03:00:00 +0000\r\n"
    b"From: You <you@example.test>\r\nTo: a@b.test,\r\n  c@d.test\r\nSubject: hello\r\n"
    b"Date: Mon, 23 Nov 2026 03:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n"
)
_KINDS = (
    ((KeyType.ED25519, 256),),
    ((KeyType.RSA, 1024),),
    ((KeyType.RSA, 2048),),
    ((KeyType.RSA, 4096),),
    ((KeyType.RSA, 2048), (KeyType.ED25519, 256)),
)
_AT_ONCE = 20


def _signer(privates: list[PrivateKey]) -> MessageSigner:
    keyring = Keyring()
    for number, private in enumerate(privates):
        key = Key(
            domain=_DOMAIN,
            selector=f"s{number}",
            key_type=private.key_type,
            bits=private.bits,
            public=private.public,
            created=datetime.now(UTC),
            state=KeyState.ACTIVE,
        )
        keyring.take(Entry(key.selector, key, private, "1"))
    keyring.take(Complete(frozenset(f"s{number}" for number in range(len(privates)))))
    return MessageSigner(keyring, lambda: datetime.now(UTC))


async def _turn(work: Callable[[], Awaitable[object]]) -> float:
    """How often `work` can be done in a second of CPU time, seen over one turn."""
    began = time.process_time()
    for _ in range(_AT_ONCE):
        await work()
    return _AT_ONCE / (time.process_time() - began)


async def _run(seconds: float) -> None:
    sys.stdout.write(f"{'keys':>20} {'mails/s':>10} {'arithmetic/s':>14} {'share':>7}\n")
    for kinds in _KINDS:
        privates = [generate(key_type, bits=bits) for key_type, bits in kinds]
        signer = _signer(privates)

        async def mail(signer: MessageSigner = signer) -> object:
            return await signer.sign(_DOMAIN, _HEADER, bytes(32))

        async def arithmetic(privates: list[PrivateKey] = privates) -> object:
            return [private.sign(bytes(32)) for private in privates]

        turns: list[tuple[float, float]] = []
        began = time.process_time()
        while time.process_time() - began < seconds:
            turns.append((await _turn(mail), await _turn(arithmetic)))
        mails, bare = (median(each) for each in zip(*turns, strict=True))
        name = " + ".join(f"{key_type} {bits}" for key_type, bits in kinds)
        sys.stdout.write(f"{name:>20} {mails:10.0f} {bare:14.0f} {mails / bare:7.0%}\n")
        await signer.close()


if __name__ == "__main__":
    asyncio.run(_run(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0))
