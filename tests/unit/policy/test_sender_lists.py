"""allow and deny: which senders are on a list, and what it takes to be believed."""

import pytest

from services.common.config.policy import Policy
from services.policy.action import Action
from services.policy.checks import allow, deny
from services.policy.checks.check import Means, Standing
from services.policy.sender_list import SenderList
from tests.support.resolver import FakeResolver
from tests.support.subjects import HOSTNAME, envelope

ENTRIES = ("192.0.2.0/24", "2001:db8::1", "example.org", "Ann@example.net", "xn--bcher-kva.example")
ZONE = {
    ("example.org", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"],
    ("example.net", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"],
}


def means(*, allowed: tuple[str, ...] = (), denied: tuple[str, ...] = ()) -> Means:
    return Means(
        FakeResolver(ZONE),
        Policy(),
        HOSTNAME,
        allow=SenderList.of(allowed),
        deny=SenderList.of(denied),
    )


@pytest.mark.parametrize(
    ("client", "sender", "entry"),
    [
        ("192.0.2.77", "x@elsewhere.test", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "x@elsewhere.test", "192.0.2.0/24"),
        ("2001:db8::1", "", "2001:db8::1/128"),
        ("198.51.100.1", "x@example.org", "example.org"),
        ("198.51.100.1", "X@Sub.Example.ORG", "example.org"),
        ("198.51.100.1", "ANN@example.net", "ANN@example.net"),
        ("198.51.100.1", "x@bücher.example", "xn--bcher-kva.example"),
        ("198.51.100.1", "x@notexample.org", ""),
        ("198.51.100.1", "x@org", ""),
        ("198.51.100.1", "bob@example.net", ""),
        ("198.51.100.1", "garbage", ""),
        ("198.51.100.1", "", ""),
    ],
)
async def test_entries(client: str, sender: str, entry: str) -> None:
    listed = Policy.model_validate({"deny": ENTRIES}).deny
    finding = await deny.find(envelope(sender, client=client), means(denied=listed))
    assert finding.result == ("listed" if entry else "none")
    if entry:
        assert dict(finding.evidence)["deny.entry"] == entry
        assert finding.standing is Standing.OBJECTS
        assert deny.CHECK.fixed_action is Action.REFUSE


@pytest.mark.parametrize(
    ("client", "sender", "result", "standing"),
    [
        ("192.0.2.77", "anybody@elsewhere.test", "listed", Standing.VOUCHES),
        ("198.51.100.1", "x@example.org", "listed", Standing.VOUCHES),
        ("203.0.113.9", "x@example.org", "unconfirmed", Standing.CLEAR),
        ("203.0.113.9", "x@sub.example.org", "unconfirmed", Standing.CLEAR),
        ("198.51.100.1", "x@elsewhere.test", "none", Standing.CLEAR),
    ],
)
async def test_who_is_believed(client: str, sender: str, result: str, standing: Standing) -> None:
    use = means(allowed=("192.0.2.0/24", "example.org"))
    finding = await allow.find(envelope(sender, client=client), use)
    assert (finding.result, finding.standing) == (result, standing)


@pytest.mark.parametrize("entry", ["", "not a name", "192.0.2.1/24", "@example.org", "ann@", "*"])
def test_entries_that_make_no_sense_are_told(entry: str) -> None:
    with pytest.raises(ValueError, match="a network, a domain or an address"):
        Policy.model_validate({"allow": [entry]})


def test_without_a_list_nothing_is_looked_up() -> None:
    assert allow.CHECK.applies is not None
    assert not allow.CHECK.applies(envelope(), means())
    assert deny.CHECK.applies is not None
    assert not deny.CHECK.applies(envelope(), means())
