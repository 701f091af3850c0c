"""Where the mail for a destination goes."""

from pathlib import Path
from typing import Any

import pytest

from services.common.config.model import Config
from services.common.config.next_hop import HopProtocol, NextHop, parse_next_hop
from services.delivery.route import (
    Hop,
    HopRoute,
    LocalRoute,
    MxRoute,
    Route,
    RouteKind,
    is_ours_elsewhere,
    route_of,
    submitting_domain,
)
from tests.support.delivery import ACCOUNT, mail

LOCAL = {"domains": {"local": ["here.test"]}, "mailbox": {"directory": "/mail"}}
RELAY = {"domains": {"relay": {"next.test": "lmtp:10.0.0.1:24"}}}
SMARTHOST = {"delivery": {"smarthost": {"host": "smart.test"}}}
WITH_PASSWORD = {
    "delivery": {"smarthost": {"host": "smart.test", "username": "me", "password_file": "/pw"}}
}


def hop(host: str, port: int, protocol: HopProtocol = HopProtocol.SMTP) -> NextHop:
    return NextHop(protocol, host, port)


def relay(host: str, port: int, protocol: HopProtocol = HopProtocol.SMTP) -> HopRoute:
    return HopRoute((Hop(hop(host, port, protocol)),), RouteKind.RELAY)


def smart(*hops: Hop) -> HopRoute:
    return HopRoute(hops, RouteKind.SMARTHOST)


@pytest.mark.parametrize(
    ("config", "destination", "route"),
    [
        ({}, "far.test", MxRoute("far.test")),
        ({}, "[192.0.2.1]", MxRoute("[192.0.2.1]")),
        (LOCAL, "here.test", LocalRoute(Path("/mail"))),
        (LOCAL, "sub.here.test", MxRoute("sub.here.test")),
        (LOCAL | SMARTHOST, "here.test", LocalRoute(Path("/mail"))),
        (RELAY, "next.test", relay("10.0.0.1", 24, HopProtocol.LMTP)),
        (RELAY | SMARTHOST, "next.test", relay("10.0.0.1", 24, HopProtocol.LMTP)),
        (SMARTHOST, "far.test", smart(Hop(hop("smart.test", 25)))),
        (
            WITH_PASSWORD,
            "far.test",
            smart(Hop(hop("smart.test", 587), "me", Path("/pw"), verified=True)),
        ),
        (
            {
                "delivery": {
                    "smarthost": {
                        "host": "smart.test",
                        "alternatives": [{"host": "192.0.2.1", "port": 2525}],
                    }
                }
            },
            "far.test",
            smart(Hop(hop("smart.test", 25)), Hop(hop("192.0.2.1", 2525))),
        ),
        (
            {
                "domains": {"local": ["here.test"]},
                "mailbox": {"kind": "lmtp", "lmtp": "127.0.0.1:24"},
            },
            "here.test",
            HopRoute((Hop(hop("127.0.0.1", 24, HopProtocol.LMTP)),), RouteKind.LOCAL),
        ),
    ],
)
def test_routes(config: dict[str, Any], destination: str, route: Route) -> None:
    assert route_of(Config.model_validate(config), destination) == route


@pytest.mark.parametrize(
    ("sender_domain", "route"),
    [
        ("mine.test", smart(Hop(hop("mine.smart.test", 25)))),
        ("direct.test", MxRoute("far.test")),
        ("other.test", smart(Hop(hop("smart.test", 25)))),
        ("", smart(Hop(hop("smart.test", 25)))),
    ],
)
def test_senders_may_have_smarthosts_of_their_own(sender_domain: str, route: Route) -> None:
    smarthosts = {"mine.test": {"host": "mine.smart.test"}, "direct.test": {}}
    delivery = {"smarthost": {"host": "smart.test"}, "sender_smarthosts": smarthosts}
    config = Config.model_validate({"delivery": delivery})
    assert route_of(config, "far.test", sender_domain) == route


@pytest.mark.parametrize(
    "smarthost",
    [
        {"username": "me"},
        {"host": "a.test", "username": "me"},
        {"host": "a.test", "password_file": "/pw"},
        {"host": "a.test", "username": "me", "password_file": "/pw", "token_file": "/t"},
        {"alternatives": [{"host": "a.test"}]},
        {"host": "a.test", "alternatives": [{}]},
    ],
)
def test_half_a_smarthost_is_none(smarthost: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="smarthost"):
        Config.model_validate({"delivery": {"smarthost": smarthost}})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("smtp:mail.example.org:2525", hop("mail.example.org", 2525)),
        ("smtp:mail.example.org", hop("mail.example.org", 25)),
        ("smtp:192.0.2.1", hop("192.0.2.1", 25)),
        ("smtp:[2001:db8::1]", hop("2001:db8::1", 25)),
        ("smtp:[2001:db8::1]:587", hop("2001:db8::1", 587)),
        ("lmtp:127.0.0.1:24", hop("127.0.0.1", 24, HopProtocol.LMTP)),
    ],
)
def test_next_hops(text: str, parsed: NextHop) -> None:
    assert parse_next_hop(text) == parsed
    assert parse_next_hop(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["", "mail.example.org", "smtp:", "lmtp:host.test", "http:a.test:1", "smtp:a b:1", 7]
)
def test_what_is_no_next_hop(text: object) -> None:
    with pytest.raises(ValueError, match=r"hop|domain|port"):
        parse_next_hop(text)


STRANGE = {"authenticated_account": ""}


@pytest.mark.parametrize(
    ("config", "original", "fields", "expected"),
    [
        ({}, "you@here.test", STRANGE, True),
        (SMARTHOST, "you@here.test", STRANGE, True),
        (LOCAL, "you@here.test", STRANGE, False),
        ({"domains": {"relay": {"here.test": "smtp:10.0.0.1"}}}, "you@here.test", STRANGE, False),
        ({}, "list@alias.test", STRANGE, False),
        ({}, "you@here.test", {"authenticated_account": ACCOUNT}, False),
        ({}, "you@here.test", {**STRANGE, "client_address": ""}, False),
    ],
    ids=["mx", "smarthost", "local", "relay", "alias", "submitted", "our own"],
)
def test_a_domain_that_policy_knows_and_delivery_does_not(
    config: dict[str, Any], original: str, fields: dict[str, str], expected: bool
) -> None:
    record = mail("you@here.test", **fields)
    record.recipients[0].original_address = original
    route = route_of(Config.model_validate(config), "here.test")
    assert is_ours_elsewhere(route, record) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "example.org"),
        ({"client_address": "", "authenticated_account": ""}, "example.org"),
        (STRANGE, ""),
        ({"sender": ""}, ""),
    ],
    ids=["submitted", "our own", "a stranger's claim", "null sender"],
)
def test_whose_smarthost_a_mail_may_use(fields: dict[str, str], expected: str) -> None:
    assert submitting_domain(mail("you@far.test", **fields)) == expected
