"""Where mail goes while policy is away: nowhere that policy would not send it, as far as known."""

import pytest

from services.common.config.model import Config
from services.common.mail.address import parse_mailbox
from services.ingress.unjudged import unjudged_target

_VALUES = {
    "domains": {
        "local": ["example.test", "other.test"],
        "relay": {"branch.example": "smtp:192.0.2.5:25"},
    },
    "recipients": {
        "aliases": {
            "Sales@example.test": ["you@example.test", "far@elsewhere.example"],
            "grüße@example.test": "you@example.test",
        }
    },
}

# (recipient, where a stranger's mail goes, where it goes of who logged in)
TARGETS = [
    ("you@example.test", "you@example.test", "you@example.test"),
    ("You@EXAMPLE.test", "you@example.test", "you@example.test"),
    ("straße@example.test", "strasse@example.test", "strasse@example.test"),
    ("postmaster", "postmaster@example.test", "postmaster@example.test"),
    ("sales@other.test", "sales@other.test", "sales@other.test"),
    ("sales@example.test", None, None),
    ("SALES@example.test", None, None),
    ("GRÜSSE@example.test", None, None),
    ("you+tag@example.test", None, None),
    ("sales+tag@example.test", None, None),
    ("a%b.example@example.test", None, "a%b.example@example.test"),
    ("b.example!a@example.test", None, "b.example!a@example.test"),
    ('"a@b.example"@example.test', None, '"a@b.example"@example.test'),
    # Folded, this would be longer than a local part may be.
    ("\u023a" * 32 + "@example.test", None, None),
    ("You@branch.example", "You@branch.example", "You@branch.example"),
    ("you+tag@branch.example", "you+tag@branch.example", "you+tag@branch.example"),
    ("a%b.example@branch.example", None, "a%b.example@branch.example"),
    ("b.example!a@branch.example", None, "b.example!a@branch.example"),
    ('"a@b.example"@branch.example', None, '"a@b.example"@branch.example'),
    ("You@elsewhere.example", None, "You@elsewhere.example"),
    ("you@sub.example.test", None, "you@sub.example.test"),
    ("you@[192.0.2.1]", None, "you@[192.0.2.1]"),
]


@pytest.mark.parametrize(("recipient", "strangers", "ours"), TARGETS)
def test_where_it_goes(recipient: str, strangers: str | None, ours: str | None) -> None:
    config = Config.model_validate(_VALUES)
    mailbox = parse_mailbox(recipient, smtputf8=True)
    for authenticated, expected in ((False, strangers), (True, ours)):
        target = unjudged_target(mailbox, config=config, authenticated=authenticated)
        assert (None if target is None else str(target)) == expected


@pytest.mark.parametrize(("separator", "taken"), [("-", "you+tag"), ("", "you+tag"), ("+", "a-b")])
def test_a_sub_address_is_what_the_separator_makes_one(separator: str, taken: str) -> None:
    config = Config.model_validate(
        {
            "domains": {"local": ["example.test"]},
            "recipients": {"subaddress_separator": separator},
        }
    )
    mailbox = parse_mailbox(f"{taken}@example.test")
    assert unjudged_target(mailbox, config=config, authenticated=False) == mailbox
    if separator:
        tagged = parse_mailbox(f"you{separator}x@example.test")
        assert unjudged_target(tagged, config=config, authenticated=False) is None


def test_without_a_local_domain_postmaster_is_nobody() -> None:
    config = Config.model_validate({"domains": {"relay": {"branch.example": "smtp:192.0.2.5"}}})
    target = unjudged_target(parse_mailbox("postmaster"), config=config, authenticated=True)
    assert target is None
