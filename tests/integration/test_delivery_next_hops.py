"""A host that fails, in whatever way, costs a bounded time, and the next one gets the mail.

After the dot it may have taken the mail, so then nobody else is asked: it is tried again later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from services.common.jetstream import JetStream
from services.delivery.smtp.session import Patience
from tests.support.booked import booked, collect, submit_all
from tests.support.delivery import FAR, Delivery, contents, patience_with, wait_queued
from tests.support.ledger import Ledger
from tests.support.ports import free_port
from tests.support.smtp_peer import Call, Drip, Drop, Raw, Script, Silence, SmtpPeer, Step, Then

BAD: Mapping[str, Mapping[str, Script] | None] = {
    "dead": None,
    "resetting": {"greeting": Drop()},
    "silent": {"greeting": Silence()},
    "an octet now and then": {"greeting": Drip("220 a greeting that takes its time", 0.2)},
    "endless": {"greeting": Raw(b"220-and on\r\n" * 200)},
    "endless line": {"greeting": Raw(b"220 " + b"x" * 100_000)},
    "babbling": {"greeting": Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")},
    "garbage": {"ehlo": Raw(b"\x00\xff\xfe\r\n")},
    "busy": {"greeting": "421 4.3.2 busy"},
    "no service": {"greeting": "554 5.3.2 no service here"},
    "closing": {"mail": "421 4.3.2 closing"},
    "reset at MAIL": {"mail": Drop()},
    "reset at RCPT": {"rcpt": Drop()},
    "reset at DATA": {"data": Drop()},
}
IN_DOUBT: Mapping[str, Step] = {
    "silent": Silence(),
    "closed": Drop(),
    "garbage": Raw(b"\x00\xff\xfe\r\n"),
    "closing": "421 4.3.2 closing",
}


def hosts(first: int, second: int) -> dict[str, Any]:
    """A smarthost, and another for when it cannot be had."""
    alternatives = [{"host": "127.0.0.1", "port": second}]
    smarthost = {"host": "127.0.0.1", "port": first, "alternatives": alternatives}
    eager = {"retry": {"interval": "1s"}, "backoff": {"initial": "1s", "limit": "1s"}}
    return {"delivery": {"smarthost": smarthost, **eager}}


@pytest.mark.parametrize("scripts", BAD.values(), ids=BAD)
async def test_the_next_host_gets_what_one_fails_to_take(
    store: JetStream, scripts: Mapping[str, Script] | None
) -> None:
    ledger = Ledger()
    async with contextlib.AsyncExitStack() as stack:
        good = await stack.enter_async_context(SmtpPeer())
        port = free_port()
        if scripts is not None:
            port = (await stack.enter_async_context(SmtpPeer(**scripts))).port
        async with Delivery(store, hosts(port, good.port), patience=patience_with(scripts or {})):
            await submit_all(store, booked(ledger, [f"you@{FAR}"] * 2))
            await wait_queued(store, seconds=40)
            collect(ledger, good.mails)
    assert ledger.problems(duplicates_allowed=0) == []
    assert await contents(store) == []


@pytest.mark.parametrize("script", IN_DOUBT.values(), ids=IN_DOUBT)
async def test_after_the_dot_nobody_else_is_asked(store: JetStream, script: Step) -> None:
    ledger = Ledger()
    async with SmtpPeer() as good, SmtpPeer() as doubtful:
        config = hosts(doubtful.port, good.port)
        delivery = Delivery(store, config, patience=patience_with({"dot": script}))

        def be_patient() -> None:
            """From the next session on: who gives up on an answer that is late sends it twice."""
            delivery._remote._patience = Patience()

        doubtful.script(dot=[Then([Call(be_patient), script]), "250 2.0.0 taken"])
        async with delivery:
            await submit_all(store, booked(ledger, [f"you@{FAR}"]))
            await wait_queued(store, seconds=40)
            collect(ledger, doubtful.mails)
        assert not good.commands
    assert ledger.problems(duplicates_allowed=0) == []
    assert await contents(store) == []
