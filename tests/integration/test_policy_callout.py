"""Callouts against real SMTP servers on loopback: what is asked, kept, limited and never done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess
from tests.support.ports import free_port
from tests.support.smtp_peer import Drip, Drop, Script, Silence, SmtpPeer
from tests.support.soon import soon

PORT = free_port()


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, dns: DnsServer
) -> Iterator[PolicyProcess]:
    others = ("helo_mismatch", "invalid_sender", "spf_mismatch")
    config: dict[str, Any] = {
        "domains": {"local": ["example.test", "easy.test"]},
        "policy": {
            "actions": {**dict.fromkeys(others, "accept"), "sender_unreachable": "refuse"},
            "domains": {"easy.test": {"actions": {"sender_unreachable": "spam"}}},
            "check_timeout": "3s",
            "callout": {
                "port": PORT,
                "allowed_networks": ["127.0.0.5", "127.0.0.6"],
                "timeout": "2s",
                "rate": 6,
            },
        },
    }
    with PolicyProcess(
        tmp_path_factory.mktemp("policy"), nats_url=nats_server.url, dns=dns.address, config=config
    ) as process:
        yield process


class Asked:
    """One domain per test, whose exchange is 127.0.0.5."""

    def __init__(self, policy: PolicyProcess, dns: DnsServer, name: str) -> None:
        self.policy = policy
        self._dns, self._name = dns, name
        self.domain = f"{name}.example"
        dns.records[self.domain, "MX"] = [f"10 mx.{self.domain}", f"20 mx2.{self.domain}"]
        dns.records[f"mx.{self.domain}", "A"] = ["127.0.0.5"]
        self.count = 0

    def about_another(self) -> Asked:
        """The same about a domain that nobody has asked about."""
        return Asked(self.policy, self._dns, f"{self._name}-2")

    async def about(self, local_part: str = "ann", *, dry_run: bool = False) -> Any:
        """The result and the verdict on a recipient, for mail of this sender."""
        self.count += 1
        answer: pb.CheckEnvelopeResponse = await asyncio.to_thread(
            self.policy.check_envelope,
            sender=f"{local_part}@{self.domain}",
            recipients=("postmaster@example.test",),
            message_id="" if dry_run else f"callout-{self.count}",
        )
        [recipient] = answer.recipients
        [result] = [
            each for each in recipient.verdict.check_results if each.check == "sender_unreachable"
        ]
        return result, recipient.verdict


@pytest.fixture
def asked(policy: PolicyProcess, dns: DnsServer, request: pytest.FixtureRequest) -> Asked:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    return Asked(policy, dns, name)


def peer(**script: Script) -> SmtpPeer:
    server = SmtpPeer(host="127.0.0.5", **script)  # type: ignore[arg-type]
    server.port = PORT
    return server


def facts(result: verdict_pb2.CheckResult) -> dict[str, str]:
    return {fact.name: fact.value for fact in result.evidence}


async def test_a_sender_that_gets_mail(asked: Asked) -> None:
    def counted() -> list[float]:
        name = "gatepost_policy_callouts_total"
        return [asked.policy.metric(name, result=result) for result in ("takes", "remembered")]

    before = counted()
    async with peer() as server:
        result, verdict = await asked.about()
        again, _ = await asked.about()
    assert result.result == "pass"
    assert verdict.reply.code == 250
    assert facts(result)["callout.host"] == f"mx.{asked.domain} [127.0.0.5]"
    assert facts(result)["callout.reply"] == "RCPT: 250 2.1.5 ok"
    # The second time nobody is asked.
    assert server.connections == 1
    assert facts(again)["callout.remembered"] == "yes"
    assert counted() == [value + 1 for value in before]
    assert server.commands[0].startswith("EHLO mail.example.test")
    assert server.commands[1:3] == ["MAIL FROM:<>", f"RCPT TO:<ann@{asked.domain}>"]
    assert not any(command.startswith("DATA") for command in server.commands)


async def test_a_sender_that_does_not_exist(asked: Asked) -> None:
    async with peer(rcpt="550 5.1.1 no such user") as server:
        result, verdict = await asked.about()
        again, _ = await asked.about()
    assert (result.result, result.objects) == ("fail", True)
    assert (verdict.reply.code, verdict.reply.enhanced_code) == (550, "5.1.8")
    assert (again.result, server.connections) == ("fail", 1)


@pytest.mark.timed
@pytest.mark.parametrize(
    "script",
    [
        {"rcpt": "450 4.2.0 greylisted"},
        {"rcpt": "550 5.7.1 blocked"},
        {"mail": "550 no bounces here"},
        {"greeting": "554 no"},
        {"greeting": Drop()},
        {"greeting": Drip("220 slow", pause_s=1.0)},
        {"rcpt": Silence()},
    ],
    ids=["4xx", "policy", "null", "greeting", "drop", "drip", "silence"],
)
async def test_what_does_not_say_is_no_failure(asked: Asked, script: dict[str, Script]) -> None:
    async def attempt() -> float:
        nonlocal asked
        asked = asked.about_another()
        async with peer(**script):
            started = time.monotonic()
            result, verdict = await asked.about()
            took = time.monotonic() - started
        assert (result.result, verdict.reply.code) == ("temperror", 250)
        return took

    await soon(attempt, seconds=4)


async def test_nobody_listens(asked: Asked) -> None:
    result, verdict = await asked.about()
    assert (result.result, verdict.reply.code) == ("temperror", 250)


async def test_loopback_is_not_asked(asked: Asked, dns: DnsServer) -> None:
    dns.records[f"mx.{asked.domain}", "A"] = ["127.0.0.7"]
    async with SmtpPeer(host="127.0.0.7", rcpt="550 5.1.1 no") as server:
        result, _ = await asked.about()
    assert result.result == "temperror"
    assert "forbidden network" in facts(result)["callout.outcome"]
    assert server.connections == 0


async def test_the_next_exchange_is_asked(asked: Asked, dns: DnsServer) -> None:
    dns.records[f"mx2.{asked.domain}", "A"] = ["127.0.0.6"]
    second = SmtpPeer(host="127.0.0.6", rcpt="550 5.1.1 no")
    second.port = PORT
    async with peer(rcpt="451 4.3.0 later"), second:
        result, _ = await asked.about()
    assert facts(result)["callout.host"] == f"mx2.{asked.domain} [127.0.0.6]"
    assert result.result == "fail"


async def test_a_dry_run_asks_and_remembers_nothing(asked: Asked) -> None:
    async with peer() as server:
        first, _ = await asked.about(dry_run=True)
        second, _ = await asked.about(dry_run=True)
        real, _ = await asked.about()
        last, _ = await asked.about(dry_run=True)
    assert server.connections == 3
    assert [each.result for each in (first, second, real, last)] == ["pass"] * 4
    assert facts(last)["callout.remembered"] == "yes"
    assert facts(first)["callout.reply"] == facts(real)["callout.reply"]


async def test_a_domain_is_not_asked_more_often_than_the_rate(asked: Asked) -> None:
    async with peer() as server:
        results = [(await asked.about(f"user{number}"))[0].result for number in range(9)]
    assert results == ["pass"] * 6 + ["temperror"] * 3
    assert server.connections == 6


@pytest.mark.timed
async def test_many_at_once_are_two_at_a_time_and_do_not_hold_up_others(
    asked: Asked, policy: PolicyProcess
) -> None:
    async def attempt() -> float:
        nonlocal asked
        asked = asked.about_another()
        async with peer(rcpt=Silence()) as server:
            waiting = [asyncio.create_task(asked.about(f"user{number}")) for number in range(10)]
            await asyncio.sleep(0.3)
            started = time.monotonic()
            await asyncio.to_thread(policy.check_envelope, sender="", message_id="other-1")
            took = time.monotonic() - started
            results = [(await task)[0].result for task in waiting]
        assert set(results) == {"temperror"}
        assert server.connections <= 2 * 3
        return took

    await soon(attempt, seconds=0.5)


@pytest.mark.parametrize("sender", ["", "garbage", "ann@[192.0.2.1]"])
async def test_some_senders_are_not_asked_about(policy: PolicyProcess, sender: str) -> None:
    answer = await asyncio.to_thread(policy.check_envelope, sender=sender)
    results = {result.check: result.result for result in answer.verdict.check_results}
    assert results["sender_unreachable"] == "none"


async def test_an_answer_counts_for_whom_it_matters(asked: Asked) -> None:
    async with peer(rcpt="550 5.1.1 no such user"):
        answer = await asyncio.to_thread(
            asked.policy.check_envelope,
            sender=f"ann@{asked.domain}",
            recipients=("postmaster@example.test", "postmaster@easy.test"),
            message_id="both-1",
        )
    actions = [each.verdict.action for each in answer.recipients]
    assert actions == [verdict_pb2.ACTION_REFUSE, verdict_pb2.ACTION_SPAM]


async def test_without_an_action_nobody_is_asked(asked: Asked) -> None:
    asked.policy.configure({"policy": {"callout": {"port": PORT}}})
    async with peer() as server:
        answer = await asyncio.to_thread(
            asked.policy.check_envelope,
            sender=f"ann@{asked.domain}",
            recipients=("postmaster@example.test",),
            message_id="off-1",
        )
    assert "sender_unreachable" not in {each.check for each in answer.verdict.check_results}
    assert server.connections == 0
