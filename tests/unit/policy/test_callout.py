"""Callouts: whom is asked, what is said, and what an answer means."""

import asyncio
from collections.abc import Iterable
from typing import cast

import pytest

from services.common.config.policy import Callout
from services.common.mail.address import parse_mailbox
from services.policy.callout.dialogue import Answer, Broken, Said, ask
from services.policy.callout.exchanges import NobodyTakesMail, NowhereToAsk, hosts_of
from tests.support.resolver import FakeResolver

SENDER = parse_mailbox("ann@example.org")


class Notebook:
    """Writes down what is said."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data

    async def drain(self) -> None:
        """Nothing to wait for."""


async def talk(replies: Iterable[str], sender: str = "ann@example.org") -> tuple[Said, list[str]]:
    """A conversation with somebody who says these things whatever is said."""
    reader = asyncio.StreamReader(limit=2048)
    reader.feed_data("".join(f"{line}\r\n" for line in replies).encode("latin-1"))
    reader.feed_eof()
    notebook = Notebook()
    said = await ask(
        reader,
        cast("asyncio.StreamWriter", notebook),
        parse_mailbox(sender, smtputf8=True),
        hostname="us.example.test",
    )
    return said, notebook.said.decode().splitlines()


HELLO = ["220 mx ready", "250-mx", "250 SMTPUTF8"]


@pytest.mark.parametrize(
    ("replies", "answer"),
    [
        ([*HELLO, "250 ok", "250 2.1.5 yes"], Answer.TAKES),
        ([*HELLO, "250 ok", "251 will forward"], Answer.TAKES),
        ([*HELLO, "250 ok", "252 perhaps"], Answer.TAKES),
        ([*HELLO, "250 ok", "550 5.1.1 no such user"], Answer.REFUSES),
        ([*HELLO, "250 ok", "550 no such user"], Answer.REFUSES),
        ([*HELLO, "250 ok", "553 5.1.3 bad address"], Answer.REFUSES),
        ([*HELLO, "250 ok", "550-5.2.1 gone", "550 5.2.1 for good"], Answer.REFUSES),
        ([*HELLO, "250 ok", "450 4.2.0 greylisted"], Answer.DOES_NOT_SAY),
        ([*HELLO, "250 ok", "550 5.7.1 you are on a list"], Answer.DOES_NOT_SAY),
        ([*HELLO, "250 ok", "503 5.5.1 what?"], Answer.DOES_NOT_SAY),
        ([*HELLO, "550 5.7.1 no null senders"], Answer.DOES_NOT_SAY),
        ([*HELLO, "451 later"], Answer.DOES_NOT_SAY),
        (["554 go away"], Answer.DOES_NOT_SAY),
        (["421 busy"], Answer.DOES_NOT_SAY),
        (["220 old", "500 what?", "250 old", "250 ok", "250 yes"], Answer.TAKES),
        (["220 old", "500 what?", "550 no"], Answer.DOES_NOT_SAY),
        (["220 mx", "421 not now"], Answer.DOES_NOT_SAY),
    ],
)
async def test_answers(replies: list[str], answer: Answer) -> None:
    said, _ = await talk(replies)
    assert said.answer is answer


@pytest.mark.parametrize(
    "replies",
    [
        [],
        ["220 mx"],
        [*HELLO, "250 ok"],
        ["HTTP/1.1 400 Bad Request"],
        ["220 mx", "garbage"],
        ["220-more"] * 200,
        ["220 " + "x" * 3000],
        ["199 no such class"],
    ],
    ids=["silence", "hangs up", "hangs up late", "http", "garbage", "endless", "long", "class"],
)
async def test_conversations_that_come_to_nothing(replies: list[str]) -> None:
    with pytest.raises(Broken):
        await talk(replies)


async def test_what_is_said() -> None:
    _, lines = await talk([*HELLO, "250 ok", "250 yes", "250 reset", "221 bye"])
    assert lines == [
        "EHLO us.example.test",
        "MAIL FROM:<>",
        "RCPT TO:<ann@example.org>",
        "RSET",
        "QUIT",
    ]


async def test_addresses_beyond_ascii_are_for_those_who_know_them() -> None:
    said, lines = await talk([*HELLO, "250 ok", "250 yes"], "änn@example.org")
    assert said.answer is Answer.TAKES
    assert "MAIL FROM:<> SMTPUTF8" in lines
    said, lines = await talk(["220 mx", "250 mx"], "änn@example.org")
    assert said.answer is Answer.DOES_NOT_SAY
    assert not any(line.startswith("RCPT") for line in lines)


ZONE = {
    ("two.example", "MX"): ["20 b.two.example", "10 a.two.example"],
    ("a.two.example", "A"): ["198.51.101.1"],
    ("b.two.example", "A"): ["198.51.101.2"],
    ("b.two.example", "AAAA"): ["2600::2"],
    ("implicit.example", "A"): ["198.51.101.3"],
    ("null.example", "MX"): ["0 ."],
    ("text.example", "TXT"): ["nothing"],
    ("gone.example", "MX"): ["10 nowhere.gone.example"],
    ("doubt.example", "MX"): ["10 slow.example"],
    ("mixed.example", "MX"): ["10 inside.example", "20 a.two.example"],
    ("inside.example", "A"): ["10.0.0.1"],
}
FORBIDDEN = {
    "127.0.0.1": "A",
    "127.8.8.8": "A",
    "0.0.0.0": "A",
    "10.1.2.3": "A",
    "172.16.0.1": "A",
    "192.168.1.1": "A",
    "169.254.169.254": "A",
    "100.64.0.1": "A",
    "224.0.0.1": "A",
    "255.255.255.255": "A",
    "::1": "AAAA",
    "fe80::1": "AAAA",
    "fd00::1": "AAAA",
    "::ffff:127.0.0.1": "AAAA",
    "64:ff9b::10.0.0.1": "AAAA",
    "2002:7f00:1::": "AAAA",
    "ff02::1": "AAAA",
}


async def names(domain: str) -> list[tuple[str, str]]:
    resolver = FakeResolver(ZONE, temporary={"slow.example"})
    hosts = await hosts_of(domain, resolver, allowed=())
    return [(host.name, str(host.address)) for host in hosts]


async def test_exchanges_are_asked_in_the_order_of_their_preference() -> None:
    assert await names("two.example") == [
        ("a.two.example", "198.51.101.1"),
        ("b.two.example", "2600::2"),
        ("b.two.example", "198.51.101.2"),
    ]


async def test_without_an_exchange_the_domain_itself_is_asked() -> None:
    assert await names("implicit.example") == [("implicit.example", "198.51.101.3")]


@pytest.mark.parametrize(
    "domain", ["nowhere.example", "null.example", "text.example", "gone.example"]
)
async def test_where_nobody_takes_mail(domain: str) -> None:
    with pytest.raises(NobodyTakesMail):
        await names(domain)


@pytest.mark.parametrize("domain", ["slow.example", "doubt.example"])
async def test_where_it_cannot_be_told(domain: str) -> None:
    with pytest.raises(NowhereToAsk):
        await names(domain)


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("way", ["MX", "implicit", "CNAME"])
async def test_forbidden_networks_are_never_asked(address: str, way: str) -> None:
    rdtype = FORBIDDEN[address]
    zone = {
        "MX": {("evil.example", "MX"): ["10 in.example"], ("in.example", rdtype): [address]},
        "implicit": {("evil.example", rdtype): [address]},
        "CNAME": {
            ("evil.example", "MX"): ["10 alias.example"],
            ("alias.example", "CNAME"): ["in.example"],
            ("in.example", rdtype): [address],
        },
    }[way]
    with pytest.raises(NowhereToAsk, match="forbidden"):
        await hosts_of("evil.example", FakeResolver(zone), allowed=())


async def test_beside_a_forbidden_one_the_others_are_asked() -> None:
    assert await names("mixed.example") == [("a.two.example", "198.51.101.1")]


async def test_networks_can_be_allowed() -> None:
    settings = Callout.model_validate({"allowed_networks": ["10.0.0.0/8"]})
    hosts = await hosts_of("inside.example", FakeResolver(ZONE), allowed=settings.allowed_networks)
    assert [str(host.address) for host in hosts] == ["10.0.0.1"]
