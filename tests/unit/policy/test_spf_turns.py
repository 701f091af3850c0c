"""A long SPF record is read in parts, and comes to the same as in one go."""

import pytest

from services.common.turns import Turns
from services.policy import spf_evaluation
from services.policy.spf_evaluation import MAX_TERMS_IN_TURN, SpfOutcome, SpfRequest, check_host
from tests.support.resolver import FakeResolver

LEAVES = 9
NETWORKS = 90


class CountedTurns(Turns):
    """How many turns were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def next(self) -> None:
        self.count += 1
        await super().next()


def tree(last: str, domain: str) -> FakeResolver:
    """A domain with as many includes as may be, each of so many networks."""
    names = [f"l{leaf}.{domain}" for leaf in range(LEAVES)]
    records = {(domain, "TXT"): [f"v=spf1 {' '.join(f'include:{n}' for n in names)} -all"]}
    for leaf, name in enumerate(names):
        terms = [f"ip4:198.51.{leaf}.{host}" for host in range(NETWORKS)]
        records[name, "TXT"] = [f"v=spf1 {' '.join([*terms, last])}"]
    return FakeResolver(records)


async def evaluate(resolver: FakeResolver, domain: str, turns: Turns) -> SpfOutcome:
    request = SpfRequest(
        client="192.0.2.1", local_part="a", domain=domain, helo="mx.test", receiver="us.test"
    )
    return await check_host(request, resolver, turns=turns)


@pytest.mark.parametrize(
    ("last", "result"),
    [("ip4:192.0.2.1", "pass"), ("ip4:192.0.2.2", "fail"), ("ip4:192.0.2", "permerror")],
    ids=["pass", "fail", "permerror"],
)
async def test_the_outcome_is_the_same(
    last: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = f"{result}.test"
    turns = CountedTurns()
    in_parts = await evaluate(tree(last, domain), domain, turns)
    assert in_parts.result == result
    assert turns.count >= NETWORKS // MAX_TERMS_IN_TURN
    monkeypatch.setattr(spf_evaluation, "MAX_TERMS_IN_TURN", 10**6)
    monkeypatch.setattr(spf_evaluation, "_terms", {})
    turns = CountedTurns()
    at_once = await evaluate(tree(last, domain), domain, turns)
    assert turns.count == 0
    assert in_parts == at_once


async def test_what_others_read_meanwhile_undoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terms of all evaluations share a place of limited size."""
    monkeypatch.setattr(spf_evaluation, "_MAX_TERMS", 1)
    outcome = await evaluate(tree("ip4:192.0.2.2", "full.test"), "full.test", Turns())
    assert (outcome.result, outcome.lookups) == ("fail", LEAVES)


async def test_terms_with_macros_are_read_in_parts_too() -> None:
    terms = " ".join(f"exists:{number}.%{{l}}.macro.test" for number in range(9))
    filler = " ".join(f"ip4:198.51.100.{number}" for number in range(200))
    resolver = FakeResolver(
        {
            ("macro.test", "TXT"): [f"v=spf1 {filler} {terms} -all"],
            ("8.a.macro.test", "A"): ["127.0.0.2"],
            **{(f"{number}.a.macro.test", "TXT"): ["no policy"] for number in range(8)},
        }
    )
    turns = CountedTurns()
    outcome = await evaluate(resolver, "macro.test", turns)
    assert turns.count >= 200 // MAX_TERMS_IN_TURN
    # Of eight names without an address, the third is one void lookup too many (§4.6.4).
    assert (outcome.result, outcome.void_lookups) == ("permerror", 3)
