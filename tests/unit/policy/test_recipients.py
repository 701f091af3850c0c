"""Where mail for a recipient goes: the seed's precedence, aliases, sub-addresses, relaying."""

from typing import Any

import pytest

from services.common.config.model import Config
from services.common.mail.address import Mailbox, make_mailbox, parse_mailbox
from services.common.store import Unavailable
from services.policy.recipients import Route, Routing, route

ACCOUNTS = ("you@example.test", "all@example.test", "ann+list@example.test", "jürgen@example.test")


class FakeDirectory:
    """Accounts by key; `room` is what `auto_create` finds."""

    def __init__(self, *accounts: str, room: bool = True) -> None:
        self.keys = {parse_mailbox(account, smtputf8=True).key for account in accounts}
        self.room = room

    async def has_account(self, address: Mailbox) -> bool:
        return address.key in self.keys

    async def may_create(self, domain: str, *, limit: int) -> bool:
        return self.room


class AwayDirectory(FakeDirectory):
    async def has_account(self, address: Mailbox) -> bool:
        raise Unavailable("away")


async def routed(
    recipient: str,
    recipients: dict[str, Any] | None = None,
    *,
    directory: FakeDirectory | None = None,
    authenticated: bool = False,
) -> Route:
    config = Config.model_validate(
        {
            "domains": {
                "local": ["example.test", "other.test"],
                "relay": {"relay.test": "smtp:192.0.2.5:25"},
            },
            "recipients": recipients or {},
        }
    )
    return await route(
        recipient,
        routing=Routing.of(config),
        directory=directory or FakeDirectory(*ACCOUNTS),
        authenticated=authenticated,
    )


@pytest.mark.parametrize(
    ("recipient", "result", "deliver_to"),
    [
        ("you@example.test", "local", "you@example.test"),
        ("YOU@Example.TEST", "local", "you@example.test"),
        ("you+anything@example.test", "subaddress", "you@example.test"),
        ("ann+list@example.test", "local", "ann+list@example.test"),
        ("JÜRGEN@example.test", "local", "jürgen@example.test"),
        ("bob@relay.test", "relay", "bob@relay.test"),
        ("Bob@relay.test", "relay", "Bob@relay.test"),
        ("postmaster", "postmaster", "postmaster@example.test"),
        ("PostMaster", "postmaster", "postmaster@example.test"),
        ("postmaster@other.test", "postmaster", "postmaster@other.test"),
        ("Abuse@example.test", "postmaster", "abuse@example.test"),
    ],
)
async def test_accepted(recipient: str, result: str, deliver_to: str) -> None:
    found = await routed(recipient)
    assert (found.result, found.deliver_to) == (result, (deliver_to,))
    assert found.reply.code == 250


@pytest.mark.parametrize(
    ("recipient", "result", "reply"),
    [
        ("nobody@example.test", "unknown", "550 5.1.1"),
        ("you@other.test", "unknown", "550 5.1.1"),
        ("nobody+you@example.test", "unknown", "550 5.1.1"),
        ("+you@example.test", "unknown", "550 5.1.1"),
        ("bob@elsewhere.test", "relay_denied", "550 5.7.1"),
        ("bob@sub.example.test", "relay_denied", "550 5.7.1"),
        ("bob@sub.relay.test", "relay_denied", "550 5.7.1"),
        ("bob@[192.0.2.7]", "relay_denied", "550 5.7.1"),
        # Tricks: all of it is the local part
        ("bob%elsewhere.test@example.test", "unknown", "550 5.1.1"),
        ("elsewhere.test!bob@example.test", "unknown", "550 5.1.1"),
        ('"bob@elsewhere.test"@example.test', "unknown", "550 5.1.1"),
        ("@example.test:bob@elsewhere.test", "syntax", "501 5.1.3"),
        ("bob@elsewhere.test@example.test", "syntax", "501 5.1.3"),
        # and no relay domain gets it from strangers
        ("bob%elsewhere.test@relay.test", "relay_denied", "550 5.7.1"),
        ("elsewhere.test!bob@relay.test", "relay_denied", "550 5.7.1"),
        ('"bob@elsewhere.test"@relay.test', "relay_denied", "550 5.7.1"),
        ("=?utf-8?q?bob=40elsewhere.test?=@example.test", "unknown", "550 5.1.1"),
        ("bob@example.test.", "syntax", "501 5.1.3"),
        ("bob＠example.test", "syntax", "501 5.1.3"),
        ("you@example.test\r\n", "syntax", "501 5.1.3"),
        ("", "syntax", "501 5.1.3"),
        ("<you@example.test>", "syntax", "501 5.1.3"),
    ],
)
async def test_not_accepted(recipient: str, result: str, reply: str) -> None:
    found = await routed(recipient)
    assert (found.result, found.deliver_to) == (result, ())
    assert str(found.reply).startswith(reply)


async def test_whoever_has_authenticated_may_send_anywhere() -> None:
    found = await routed("bob@elsewhere.test", authenticated=True)
    assert (found.result, found.deliver_to) == ("remote", ("bob@elsewhere.test",))
    assert (await routed("nobody@example.test", authenticated=True)).result == "unknown"
    found = await routed("50%off@relay.test", authenticated=True)
    assert (found.result, found.deliver_to) == ("relay", ("50%off@relay.test",))


UNKNOWN = "nobody@example.test"


@pytest.mark.parametrize(
    ("recipients", "result", "deliver_to"),
    [
        ({}, "unknown", ()),
        ({"catch_all": "all@example.test"}, "catch_all", ("all@example.test",)),
        ({"auto_create": True}, "auto_create", (UNKNOWN,)),
        ({"auto_create": True, "catch_all": "all@example.test"}, "auto_create", (UNKNOWN,)),
        ({"refuse_unknown": True}, "unknown", ()),
        ({"refuse_unknown": True, "catch_all": "all@example.test"}, "unknown", ()),
        ({"refuse_unknown": True, "auto_create": True}, "unknown", ()),
        (
            {"refuse_unknown": True, "auto_create": True, "catch_all": "all@example.test"},
            "unknown",
            (),
        ),
        # A domain's own rules
        (
            {"domains": {"example.test": {"catch_all": "all@example.test"}}},
            "catch_all",
            ("all@example.test",),
        ),
        (
            {
                "catch_all": "all@example.test",
                "domains": {"example.test": {"catch_all": ""}},
            },
            "unknown",
            (),
        ),
        (
            {"refuse_unknown": True, "domains": {"example.test": {"refuse_unknown": False}}},
            "unknown",
            (),
        ),
        (
            {"auto_create": True, "domains": {"example.test": {"auto_create": False}}},
            "unknown",
            (),
        ),
        ({"domains": {"other.test": {"catch_all": "all@example.test"}}}, "unknown", ()),
    ],
)
async def test_the_precedence_for_unknown_recipients(
    recipients: dict[str, Any], result: str, deliver_to: tuple[str, ...]
) -> None:
    found = await routed(UNKNOWN, recipients)
    assert (found.result, found.deliver_to) == (result, deliver_to)


async def test_beyond_its_limit_auto_create_is_as_if_it_were_off() -> None:
    full = FakeDirectory(*ACCOUNTS, room=False)
    assert (await routed(UNKNOWN, {"auto_create": True}, directory=full)).result == "unknown"
    both = {"auto_create": True, "catch_all": "all@example.test"}
    assert (await routed(UNKNOWN, both, directory=full)).result == "catch_all"


async def test_the_account_to_make_has_one_spelling() -> None:
    found = await routed("Straße+x@example.test", {"auto_create": True})
    assert found.creates == make_mailbox("strasse+x", "example.test")
    assert found.deliver_to == ("strasse+x@example.test",)


async def test_reserved_names_have_a_mailbox_whatever_is_set_and_are_not_counted() -> None:
    found = await routed("postmaster@example.test", {"refuse_unknown": True})
    assert found.accepted
    assert found.creates == make_mailbox("postmaster", "example.test")
    assert not found.counted


async def test_a_catch_all_account_that_is_missing_is_no_reason_to_refuse() -> None:
    found = await routed(UNKNOWN, {"catch_all": "missing@example.test"})
    assert (found.result, found.reply.code) == ("temperror", 451)


@pytest.mark.parametrize(
    ("aliases", "recipient", "deliver_to"),
    [
        ({"sales@example.test": "you@example.test"}, "sales@example.test", ["you@example.test"]),
        ({"SALES@example.test": "You@example.test"}, "sales@example.test", ["you@example.test"]),
        (
            {"sales@example.test": ["you@example.test", "bob@elsewhere.test"]},
            "sales@example.test",
            ["you@example.test", "bob@elsewhere.test"],
        ),
        (
            {"a@example.test": "b@other.test", "b@other.test": "you@example.test"},
            "a@example.test",
            ["you@example.test"],
        ),
        ({"a@example.test": "you@example.test"}, "a+tag@example.test", ["you@example.test"]),
        # With an account of the same name a copy stays
        (
            {"you@example.test": ["you@example.test", "you@elsewhere.test"]},
            "you@example.test",
            ["you@example.test", "you@elsewhere.test"],
        ),
        # A target that leads nowhere is left out
        (
            {"a@example.test": ["gone@example.test", "you@example.test"]},
            "a@example.test",
            ["you@example.test"],
        ),
        ({"postmaster@example.test": "you@example.test"}, "postmaster", ["you@example.test"]),
    ],
)
async def test_aliases(aliases: dict[str, Any], recipient: str, deliver_to: list[str]) -> None:
    found = await routed(recipient, {"aliases": aliases})
    assert list(found.deliver_to) == deliver_to


@pytest.mark.parametrize(
    "aliases",
    [
        {"a@example.test": "a@example.test"},
        {"a@example.test": "b@example.test", "b@example.test": "a@example.test"},
        {"a@example.test": "gone@example.test"},
        {f"{n}@example.test": f"{n + 1}@example.test" for n in range(20)}
        | {"a@example.test": "0@example.test", "20@example.test": "you@example.test"},
        {"a@example.test": [f"x{n}@elsewhere.test" for n in range(60)] + ["b@example.test"]}
        | {"b@example.test": [f"y{n}@elsewhere.test" for n in range(60)]},
    ],
    ids=["itself", "circle", "nowhere", "deep", "wide"],
)
async def test_an_alias_that_cannot_be_resolved_is_temporary(aliases: dict[str, Any]) -> None:
    found = await routed("a@example.test", {"aliases": aliases})
    assert (found.result, found.reply.code, found.deliver_to) == ("temperror", 451, ())


async def test_sub_addresses_can_be_off_or_otherwise() -> None:
    assert (await routed("you+x@example.test", {"subaddress_separator": ""})).result == "unknown"
    found = await routed("you-x@example.test", {"subaddress_separator": "-"})
    assert found.result == "subaddress"


async def test_a_directory_that_is_away_raises() -> None:
    with pytest.raises(Unavailable):
        await routed("you@example.test", directory=AwayDirectory())


async def test_without_local_domains_nobody_is_postmaster() -> None:
    config = Config.model_validate({})
    found = await route(
        "postmaster", routing=Routing.of(config), directory=FakeDirectory(), authenticated=False
    )
    assert found.result == "unknown"
