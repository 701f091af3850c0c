"""Recipients through SMTP: `refuse_unknown`, `auto_create`, `catch_all`, tricks, aliases.

For all domains and for one; and before each session a dry run, asked by gRPC and by
`gatepost check`, says the same as the session then gets.
"""

import smtplib
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from gatepost.policy.v1 import directory_pb2 as pb
from gatepost.policy.v1.directory_pb2_grpc import DirectoryServiceStub
from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from tests.support.dns_server import DnsServer
from tests.support.foretold import Mail, Outcome, foretell, recorded, send
from tests.support.installation import Installation
from tests.support.ports import free_port

ZONE = {
    ("mx.example.org", "A"): ["127.0.0.1"],
    ("example.org", "MX"): ["10 mx.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
}
CATCH_ALL = "all@example.test"
REFUSED = (550, "5.1.1 Mailbox unavailable")
REFUSE, CREATE, CATCH = (
    {"refuse_unknown": True},
    {"auto_create": True},
    {"catch_all": CATCH_ALL},
)
# What a domain sets for itself, and what then becomes of mail for an unknown recipient.
OWN: Mapping[str, tuple[Mapping[str, object], str]] = {
    "none": ({}, "unknown"),
    "refuse": (REFUSE, "unknown"),
    "create": (CREATE, "auto_create"),
    "catch": (CATCH, "catch_all"),
    "create-catch": ({**CREATE, **CATCH}, "auto_create"),
    "refuse-create": ({**REFUSE, **CREATE}, "unknown"),
    "refuse-catch": ({**REFUSE, **CATCH}, "unknown"),
    "all": ({**REFUSE, **CREATE, **CATCH}, "unknown"),
}
# The settings for all domains, what a domain sets against them, and what becomes of the mail.
GLOBAL: Mapping[
    str, tuple[Mapping[str, object], Mapping[str, tuple[Mapping[str, object], str]]]
] = {
    "refuse": (
        {**REFUSE, **CREATE, **CATCH},
        {
            "plain": ({}, "unknown"),
            "create": ({"refuse_unknown": False}, "auto_create"),
            "catch": ({"refuse_unknown": False, "auto_create": False}, "catch_all"),
        },
    ),
    "create": (
        {**CREATE, **CATCH},
        {
            "plain": ({}, "auto_create"),
            "refuse": (REFUSE, "unknown"),
            "catch": ({"auto_create": False}, "catch_all"),
            "neither": ({"auto_create": False, "catch_all": ""}, "unknown"),
        },
    ),
    "catch": (CATCH, {"plain": ({}, "catch_all"), "blank": ({"catch_all": ""}, "unknown")}),
}


def config(dns: str, general: Mapping[str, object], own: Mapping[str, object]) -> dict[str, Any]:
    """Accounts may come to be twice an hour and domain."""
    domains = {domain: settings for domain, settings in own.items() if settings}
    return {
        "dns": {"servers": [dns]},
        "domains": {
            "local": ["example.test", *own],
            "relay": {"relay.test": f"smtp:127.0.0.1:{free_port()}"},
        },
        "recipients": {
            **general,
            "auto_create_limit": 2,
            "domains": domains,
            "aliases": {
                "both@example.test": [CATCH_ALL, "you@example.test"],
                "circle@example.test": "round@example.test",
                "round@example.test": "circle@example.test",
            },
        },
    }


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, dns: DnsServer) -> Iterator[Installation]:
    own = {f"{name}.test": settings for name, (settings, _) in OWN.items()}
    started = Installation(tmp_path_factory.mktemp("gatepost"), config(dns.address, {}, own))
    started.start()
    try:
        for address in (CATCH_ALL, "you@example.test"):
            started.add_account(address, "")
        yield started
    finally:
        started.close()


def check(edge: Installation, recipient: str, result: str) -> Outcome:
    """One mail for an unknown recipient: foretold, sent, recorded, and where it arrives."""
    catch_all_before = len(edge.mail(CATCH_ALL))
    mail = Mail(recipient=recipient)
    told = foretell(edge, mail)
    outcome = send(edge, mail)
    assert recorded(edge, outcome) == told
    found = {each["check"]: each["result"] for each in told["check_results"]}
    if result == "unknown":
        assert (outcome.code, outcome.text) == REFUSED
        assert (told["decisive_check"], found["recipient"]) == ("recipient", "unknown")
        assert recipient not in accounts(edge)
        return outcome
    assert outcome.code == 250
    if result == "auto_create":
        edge.wait_mail(recipient)
        assert accounts(edge)[recipient] == pb.ACCOUNT_ORIGIN_AUTO_CREATED
    else:
        arrived = edge.wait_mail(CATCH_ALL, catch_all_before + 1)[-1]
        assert outcome.message_id.encode() in arrived
        assert recipient not in accounts(edge)
    return outcome


def accounts(edge: Installation) -> dict[str, int]:
    """Their origins by address."""
    token = token_file(edge.data / "tokens", Role.VIEWER).read_text(encoding="ascii").strip()
    with grpc.insecure_channel(f"127.0.0.1:{edge.ports['policy']}") as channel:
        listed = DirectoryServiceStub(channel).ListAccounts(
            pb.ListAccountsRequest(), metadata=(("authorization", f"Bearer {token}"),), timeout=20
        )
    return {account.address: account.origin for account in listed.accounts}


@pytest.mark.parametrize(
    ("address", "reply"),
    [
        ("bob@elsewhere.test", "550 5.7.1"),
        ("bob@sub.example.test", "550 5.7.1"),
        ("bob@[127.0.0.1]", "550 5.7.1"),
        ("@example.test:bob@elsewhere.test", "550 5.7.1"),
        ("bob%elsewhere.test@example.test", "550 5.1.1"),
        ("elsewhere.test!bob@example.test", "550 5.1.1"),
        ('"bob@elsewhere.test"@example.test', "550 5.1.1"),
        ("=?utf-8?q?bob=40elsewhere.test?=@example.test", "550 5.1.1"),
        ("bob%elsewhere.test@relay.test", "550 5.7.1"),
        ("elsewhere.test!bob@relay.test", "550 5.7.1"),
        ('"bob@elsewhere.test"@relay.test', "550 5.7.1"),
        ("bob@elsewhere.test@example.test", "501 5.1.3"),
        ("bob@elsewhere.test.", "501 5.1.3"),
        ("bob\uff20elsewhere.test", "501 5.1.3"),
        ("bob@elsewhere.test\t@example.test", "501 5.1.3"),
        ("bob\0@elsewhere.test", "500 5.5.2"),
        # Both lead to each other; an operator's mistake refuses nobody.
        ("circle@example.test", "451 4.3.5"),
    ],
)
def test_no_trick_makes_us_relay(edge: Installation, address: str, reply: str) -> None:
    with smtplib.SMTP("127.0.0.1", edge.ports["mx"], "mx.example.org", timeout=30) as client:
        client.ehlo()
        client.mail("ann@example.org")
        client.send(f"RCPT TO:<{address}>\r\n".encode())
        code, text = client.getreply()
        assert f"{code} {text.decode()}".startswith(reply)
        assert client.rcpt("you@example.test")[0] == 250


def test_an_alias_leads_to_all_its_accounts(edge: Installation) -> None:
    before = {address: len(edge.mail(address)) for address in (CATCH_ALL, "you@example.test")}
    outcome = send(edge, Mail(recipient="both@example.test"))
    assert outcome.code == 250
    for address, count in before.items():
        arrived = edge.wait_mail(address, count + 1)
        assert any(outcome.message_id.encode() in each for each in arrived)


@pytest.mark.parametrize("name", OWN)
def test_an_unknown_recipient(edge: Installation, name: str) -> None:
    check(edge, f"nobody@{name}.test", OWN[name][1])


@pytest.mark.parametrize(("name", "result"), [("create", "unknown"), ("create-catch", "catch_all")])
def test_above_the_limit_no_account_comes_to_be(edge: Installation, name: str, result: str) -> None:
    for number in range(3):
        domain = f"{name}.test"
        made = [address for address in accounts(edge) if address.endswith(f"@{domain}")]
        check(edge, f"user{number}@{domain}", "auto_create" if len(made) < 2 else result)
    assert len([a for a in accounts(edge) if a.endswith(f"@{name}.test")]) == 2


@pytest.mark.parametrize("name", OWN)
def test_some_recipients_are_always_known(edge: Installation, name: str) -> None:
    """Accounts, and postmaster and abuse of every domain."""
    for recipient in ("you@example.test", f"Postmaster@{name}.test", f"abuse@{name}.test"):
        mail = Mail(recipient=recipient)
        told = foretell(edge, mail)
        outcome = send(edge, mail)
        assert outcome.code == 250
        assert told["action"] == "ACTION_ACCEPT"


@pytest.mark.parametrize("name", GLOBAL)
def test_settings_for_all_domains_and_a_domain_s_own(
    edge: Installation, dns: DnsServer, name: str
) -> None:
    general, domains = GLOBAL[name]
    own = {f"{domain}.{name}-all.test": settings for domain, (settings, _) in domains.items()}
    edge.reconfigure(config(dns.address, general, own))
    for domain, (_, result) in domains.items():
        check(edge, f"nobody@{domain}.{name}-all.test", result)
