"""What is slow, wrong or hostile around a session, and what the client hears then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.ingress import acceptance, heartbeat, judge_stream, recipients
from services.ingress.breaker import FAILURES_TO_OPEN, MAX_PAUSE_S
from tests.support.clock import FakeClock
from tests.support.edge import running_edge
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected, no_questions_asked

_TEXT = b"Subject: x\r\n\r\ntext\r\n"
_LARGE = b"Subject: x\r\n\r\n" + b"x" * 70 * 10_000 + b"\r\n"


@pytest.fixture
def patient_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of policy is told by this process, which may have much to do."""
    monkeypatch.setattr(heartbeat, "HEALTH_DEADLINE_S", 10)
    monkeypatch.setattr(judge_stream, "HEALTH_DEADLINE_S", 10)
    monkeypatch.setattr(judge_stream, "OPEN_DEADLINE_S", 10)


async def test_a_policy_that_hangs_is_waited_for_a_moment_and_then_not_at_all(
    tmp_path: Path, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with (
        running_edge(tmp_path, nats_server, clock=clock) as edge,
        connected(edge.port()) as client,
    ):
        edge.policy.hangs = True
        seconds = []
        await client.hello()
        await client.say("MAIL FROM:<sender@example.net>")
        for _ in range(5):
            started = time.monotonic()
            assert (await client.say("RCPT TO:<you@example.test>")).startswith("451 4.3.5 ")
            seconds.append(time.monotonic() - started)
        assert max(seconds) < 10  # against a check_timeout of 20 seconds
        given_up = [each for each in caplog.messages if each == "policy does not answer"]
        assert len(given_up) == FAILURES_TO_OPEN  # no question was put for the last two

        async def is_back() -> bool:
            clock.advance(MAX_PAUSE_S)
            return (await client.say("RCPT TO:<you@example.test>")).startswith("250 ")

        edge.policy.hangs = False
        await eventually(is_back, seconds=30)


async def test_a_slow_check_is_not_an_absent_policy(
    tmp_path: Path, nats_server: NatsServer, patient_heartbeat: None
) -> None:
    async with (
        running_edge(tmp_path, nats_server) as edge,
        connected(edge.port()) as slow,
        connected(edge.port()) as other,
    ):
        edge.policy.delay_s = 3.5
        await slow.hello()
        await slow.say("MAIL FROM:<sender@example.net>")
        slow.send(b"RCPT TO:<you@example.test>\r\n")

        async def asked() -> bool:
            return bool(edge.policy.envelopes)

        await eventually(asked)
        edge.policy.delay_s = 0
        await other.hello()
        assert (await other.mail(_TEXT)).startswith("250 ")
        assert (await slow.reply()).startswith("250 ")


async def test_checks_that_take_too_long_do_not_get_mail_in(
    tmp_path: Path, nats_server: NatsServer, patient_heartbeat: None
) -> None:
    config = {"policy": {"unavailable": "accept", "check_timeout": "100ms"}}
    async with running_edge(tmp_path, nats_server, config) as edge:
        edge.policy.delay_s = 30
        async with connected(edge.port()) as client:
            await client.hello()
            await client.say("MAIL FROM:<sender@example.net>")
            for _ in range(4):
                assert (await client.say("RCPT TO:<you@example.test>")).startswith("451 4.3.5 ")
            edge.policy.delay_s = 0
            edge.configure({"policy": {"check_timeout": "20s"}})
            assert (await client.say("RCPT TO:<you@example.test>")).startswith("250 ")


async def test_a_fault_of_ours_is_temporary_and_says_nothing(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/etc/secret: token 4711")

    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        await client.hello()
        monkeypatch.setattr(acceptance, "records", broken)
        assert await client.mail(_TEXT) == ("451 4.3.0 Temporary failure, please try again later")
        monkeypatch.undo()
        assert (await client.mail(_TEXT)).startswith("250 ")
        assert len(await edge.mails()) == 1


async def test_a_fault_with_one_of_many_recipients_is_a_reply_to_each(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/etc/secret: token 4711")

    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.say("MAIL FROM:<sender@example.net>")
        with monkeypatch.context() as patch:
            patch.setattr(recipients, "recipient_octets", broken)
            client.send(b"".join(b"RCPT TO:<%d@example.test>\r\n" % number for number in range(5)))
            client.send(b"NOOP\r\n")
            for _ in range(5):
                reply = await client.reply()
                # Those that came later than the fault have no transaction any more.
                assert reply[:9] in ("451 4.3.0", "503 5.5.1")
                assert "4711" not in reply
            assert (await client.reply()).startswith("250 ")
        assert (await client.mail(_TEXT)).startswith("250 ")


async def test_what_was_sent_before_the_handshake_is_forgotten(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        await client.hello()
        client.send(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@example.net>\r\n")
        assert (await client.reply()).startswith("220 ")
        await client.writer.start_tls(no_questions_asked())
        # Had the lines been kept, the first reply would be to one of them.
        assert (await client.say("NOOP")).startswith("250 2.0.0 OK")
        assert (await client.say("RCPT TO:<you@example.test>")).startswith("503 ")


async def test_passwords_stay_out_of_the_log(
    tmp_path: Path, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "c2VjcmV0LXBhc3N3b3Jk"  # secret-password
    async with (
        running_edge(tmp_path, nats_server) as edge,
        connected(edge.port("submission")) as client,
    ):
        await client.hello()
        # Refused, and the client goes on all the same.
        await client.say("AUTH LOGIN")
        await client.say(secret)
        await client.start_tls()
        await client.say("EHLO client.example.net")
        await client.say("AUTH LOGIN")
        await client.say("eW91QGV4YW1wbGUudGVzdA==")
        assert (await client.say(secret)).startswith("535 ")
        await client.say(secret)
        await client.say(f"AUTH PLAIN {secret}")
    logged = "\n".join(
        f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in caplog.records
    )
    assert "login refused" in logged
    assert secret not in logged
    assert "secret-password" not in logged


async def test_guessing_passwords_is_slow_and_short(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    nobody = {"smtp": {"limits": {"exempt_networks": []}}}
    async with (
        running_edge(tmp_path, nats_server, nobody) as edge,
        connected(edge.port("submissions"), tls=True) as client,
    ):
        await client.hello()
        started = time.monotonic()
        replies = [await client.say("AUTH PLAIN AHlvdUBleGFtcGxlLnRlc3QAd3Jvbmc=") for _ in "123"]
        assert [reply[:3] for reply in replies] == ["535", "535", "421"]
        assert time.monotonic() - started > 3
        assert await client.ended() == b""


async def test_parallel_sessions_get_no_more_guesses_than_one_after_the_other(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    limits = {"smtp": {"limits": {"exempt_networks": [], "login_failures": 3}}}

    async with (
        running_edge(tmp_path, nats_server, limits) as edge,
        AsyncExitStack() as stack,
    ):
        port = edge.port("submissions")
        clients = [await stack.enter_async_context(connected(port, tls=True)) for _ in range(24)]
        for client in clients:
            await client.hello()
            # Begun before anything failed.
            assert (await client.say("AUTH LOGIN eW91QGV4YW1wbGUudGVzdA==")).startswith("334 ")
        edge.policy.delay_s = 0.2
        replies = Counter(
            reply[:3] for reply in await asyncio.gather(*(each.say("d3Jvbmc=") for each in clients))
        )
        assert replies == {"535": 3, "454": 21}
        assert len(edge.policy.logins) == 3


async def test_parallel_logins_with_the_right_password_all_succeed(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    limits = {"smtp": {"limits": {"exempt_networks": [], "login_failures": 3}}}
    async with (
        running_edge(tmp_path, nats_server, limits) as edge,
        AsyncExitStack() as stack,
    ):
        port = edge.port("submissions")
        clients = [await stack.enter_async_context(connected(port, tls=True)) for _ in range(12)]
        for client in clients:
            await client.hello()
        edge.policy.delay_s = 0.05
        replies = await asyncio.gather(
            *(each.say("AUTH PLAIN AHlvdUBleGFtcGxlLnRlc3QAc2VjcmV0") for each in clients)
        )
        assert {reply[:9] for reply in replies} == {"235 2.7.0"}


async def test_silent_clients_are_told_to_go(tmp_path: Path, nats_server: NatsServer) -> None:
    idle = {"smtp": {"limits": {"idle": "6s"}}}
    async with (
        running_edge(tmp_path, nats_server, idle) as edge,
        connected(edge.port()) as at_command,
        connected(edge.port()) as in_content,
    ):
        await at_command.hello()
        await in_content.hello()
        await in_content.begin()
        for client in (at_command, in_content):
            assert (await client.reply()).startswith("421 4.4.2 ")
            assert await client.ended() == b""


async def test_our_own_work_is_not_the_clients_silence(
    tmp_path: Path, nats_server: NatsServer, patient_heartbeat: None
) -> None:
    idle = {"smtp": {"limits": {"idle": "6s"}}}
    async with (
        running_edge(tmp_path, nats_server, idle) as edge,
        connected(edge.port()) as at_command,
        connected(edge.port()) as in_content,
    ):
        await in_content.hello()
        await in_content.begin()
        await at_command.hello()
        assert (await at_command.say("MAIL FROM:<sender@example.net>")).startswith("250 ")
        edge.policy.delay_s = 7  # at most `check_timeout`, which is 20 seconds
        for reply in await asyncio.gather(
            at_command.say("RCPT TO:<you@example.test>"), in_content.content(_TEXT)
        ):
            assert reply.startswith("250 ")
        edge.policy.delay_s = 0
        assert (await at_command.say("DATA")).startswith("354 ")
        assert (await at_command.content(_TEXT)).startswith("250 ")


async def test_a_transfer_that_goes_on_may_take_its_time(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    idle = {"smtp": {"limits": {"idle": "6s"}}}
    async with running_edge(tmp_path, nats_server, idle) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        for _ in range(15):  # longer in all than the client may be idle
            client.send(b"X-Slow: yes\r\n")
            await asyncio.sleep(0.5)
        assert (await client.content(b"\r\n")).startswith("250 ")


async def test_a_drip_is_cut(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingress.receiving.RATE_GRACE_S", 0.3)
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        for _ in range(5):
            client.send(b"x")
            await asyncio.sleep(0.1)
        assert (await client.reply()).startswith("421 4.4.2 ")


async def test_too_many_connections(tmp_path: Path, nats_server: NatsServer) -> None:
    limits = {"smtp": {"limits": {"connections_per_address": 2, "exempt_networks": []}}}
    async with (
        running_edge(tmp_path, nats_server, limits) as edge,
        connected(edge.port()) as first,
        connected(edge.port()) as second,
    ):
        await first.hello()
        await second.hello()
        async with connected(edge.port()) as third:
            assert (await third.reply()).startswith("421 4.7.0 ")
            assert await third.ended() == b""
        await second.say("QUIT")
        await second.ended()
        async with connected(edge.port()) as fourth:
            assert (await fourth.reply()).startswith("220 ")


async def test_a_line_without_end_ends_the_session(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        assert (await client.reply()).startswith("220 ")
        for _ in range(40):
            client.send(b"x" * 65_536)
        assert (await client.reply()).startswith("500 5.5.6 ")
        assert await client.ended() == b""


async def test_draining_finishes_what_is_in_hand(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as idle, connected(edge.port()) as busy:
            await idle.hello()
            await busy.hello()
            await busy.begin()
            draining = asyncio.create_task(edge.listeners.drain(grace_s=30))
            assert (await idle.reply()).startswith("421 4.3.2 ")
            assert await idle.ended() == b""
            with pytest.raises(ConnectionRefusedError):
                async with connected(edge.port()):
                    pass
            assert (await busy.content(_TEXT)).startswith("250 ")
            assert (await busy.reply()).startswith("421 4.3.2 ")
            await draining
        assert len(await edge.mails()) == 1


async def test_a_stubborn_client_does_not_hold_up_the_end(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        async with asyncio.timeout(30):
            await edge.listeners.drain(grace_s=1.5)
        assert await client.ended() == b""
