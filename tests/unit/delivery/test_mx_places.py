"""What is demanded of a domain's exchanges: DANE, MTA-STS, the operator, in this order."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import pytest

from services.common.mail.reply import Reply
from services.common.store import Unavailable
from services.delivery.mx_places import MxPlaces, PoliciesUnreadable
from services.delivery.place import Place
from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.smtp.session import Tls
from services.delivery.tls.report import PolicyKind, TlsResult
from services.delivery.tls.sts import NO_POLICY, MtaSts, StsFinding
from services.delivery.tls.sts_policy import Mode, StsPolicy
from tests.support.delivery import FixedConfig
from tests.support.resolver import FakeResolver

DIGEST = "00" * 32
EE = f"3 1 1 {DIGEST}"
ZONE = {
    ("a.test", "MX"): ["10 mx1.a.test", "20 mx2.a.test"],
    ("mx1.a.test", "A"): ["203.0.114.1"],
    ("mx2.a.test", "A"): ["203.0.114.2", "203.0.114.3"],
    ("implicit.test", "A"): ["203.0.114.4"],
    ("alias.test", "MX"): ["10 mx.alias.test"],
    ("mx.alias.test", "CNAME"): ["host.far.test"],
    ("host.far.test", "A"): ["203.0.114.5"],
}
SIGNED = ["a.test", "mx1.a.test", "mx2.a.test"]
OPPORTUNISTIC = (Tls.OPPORTUNISTIC, Tls.OFF)


class Found:
    """In the place of MtaSts."""

    def __init__(self, finding: StsFinding | Exception) -> None:
        self.finding = finding
        self.asked: list[str] = []

    async def of(self, domain: str) -> StsFinding:
        self.asked.append(domain)
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding


def policy(mode: Mode, *patterns: str) -> StsFinding:
    return StsFinding(StsPolicy(mode, patterns, timedelta(days=1)))


async def places(
    domain: str = "a.test",
    *,
    zone: Mapping[tuple[str, str], list[str]] | None = None,
    signed: list[Any] | None = None,
    temporary: list[Any] | None = None,
    finding: StsFinding | Exception = NO_POLICY,
    validating: bool = True,
    resolver: FakeResolver | None = None,
    **delivery: Any,
) -> list[Place]:
    resolver = resolver or FakeResolver(
        {**ZONE, **(zone or {})}, authentic=signed or [], temporary=temporary or []
    )
    found = cast(MtaSts, Found(finding))
    source = FixedConfig({"delivery": delivery})
    return await MxPlaces(source, resolver, found, validating=validating).of(domain)


def demands(found: list[Place]) -> list[tuple[Tls, ...] | None]:
    """The ways to each host; None for one that is passed over."""
    return [None if p.refusal else tuple(way.tls for way in p.ways) for p in found]


async def test_without_policies_encryption_is_only_better() -> None:
    found = await places()
    assert demands(found) == [OPPORTUNISTIC] * 3
    assert {place.policy for place in found} == {PolicyKind.NONE}
    assert {place.lacking for place in found} == {TlsResult.SUCCESS}


async def test_the_operator_may_demand_it() -> None:
    assert demands(await places(require_tls=True)) == [(Tls.REQUIRED,)] * 3


async def test_an_address_has_no_policies() -> None:
    found = cast(MtaSts, sts := Found(policy(Mode.ENFORCE, "mx.a.test")))
    resolver = FakeResolver()
    exchanges = MxPlaces(FixedConfig({}), resolver, found, validating=True)
    assert demands(await exchanges.of("[203.0.114.9]")) == [OPPORTUNISTIC]
    assert (sts.asked, resolver.queries) == ([], [])


# --- MTA-STS ------------------------------------------------------------------------------------


async def test_an_enforced_policy_demands_its_exchanges_and_their_certificates() -> None:
    found = await places(finding=policy(Mode.ENFORCE, "mx2.a.test"), extra_ca_file="/ca.pem")
    strict = (Tls.AUTHENTICATED,)
    assert demands(found) == [None, strict, strict]
    refusal = found[0].refusal
    assert refusal is not None
    assert "mx1.a.test" in refusal.reply.text
    assert refusal.reply.code == 451
    assert {place.policy for place in found} == {PolicyKind.STS}
    assert str(found[1].ways[0].extra_ca_file) == "/ca.pem"


async def test_a_tested_policy_demands_nothing_and_is_tried_first() -> None:
    found = await places(finding=policy(Mode.TESTING, "mx2.a.test"))
    assert demands(found) == [OPPORTUNISTIC] + [(Tls.AUTHENTICATED, *OPPORTUNISTIC)] * 2
    assert found[0].lacking is TlsResult.VALIDATION_FAILURE
    assert [place.mode for place in found] == ["testing"] * 3


async def test_a_tested_policy_does_not_take_away_what_the_operator_demands() -> None:
    found = await places(finding=policy(Mode.TESTING, "mx2.a.test"), require_tls=True)
    assert demands(found) == [(Tls.REQUIRED,)] + [(Tls.AUTHENTICATED, Tls.REQUIRED)] * 2


async def test_a_policy_that_cannot_be_had_is_told_and_demands_nothing() -> None:
    failed = StsFinding(failure=TlsResult.STS_POLICY_FETCH_ERROR, detail="no")
    (first, *_) = await places(finding=failed)
    assert demands([first]) == [OPPORTUNISTIC]
    assert (first.policy, first.lacking) == (PolicyKind.STS, TlsResult.STS_POLICY_FETCH_ERROR)


async def test_policies_can_be_switched_off() -> None:
    found = await places(finding=policy(Mode.ENFORCE, "mx2.a.test"), mta_sts=False)
    assert demands(found) == [OPPORTUNISTIC] * 3


async def test_a_store_that_is_away_may_hold_a_policy() -> None:
    with pytest.raises(PoliciesUnreadable, match="away"):
        await places(finding=Unavailable("away"))


# --- DANE ---------------------------------------------------------------------------------------

TLSA = {("_25._tcp.mx1.a.test", "TLSA"): [EE], ("_25._tcp.mx2.a.test", "TLSA"): [EE]}
SIGNED_TLSA = [*SIGNED, *(name for name, _ in TLSA)]


async def test_records_demand_what_they_name() -> None:
    found = await places(zone=TLSA, signed=SIGNED_TLSA)
    assert demands(found) == [(Tls.DANE,)] * 3
    dane = found[0].ways[0].dane
    assert dane is not None
    assert (dane.base, dane.names) == ("mx1.a.test", ("mx1.a.test", "a.test"))
    assert dane.records[0].association == bytes(32)


async def test_records_come_before_a_policy() -> None:
    finding = policy(Mode.ENFORCE, "elsewhere.test")
    found = await places(zone=TLSA, signed=SIGNED_TLSA, finding=finding, require_tls=True)
    assert demands(found) == [(Tls.DANE,)] * 3
    zone = dict(list(TLSA.items())[:1])
    found = await places(zone=zone, signed=SIGNED_TLSA, finding=finding)
    assert demands(found) == [(Tls.DANE,), None, None]


@pytest.mark.parametrize(
    "unsigned", ["a.test", "mx1.a.test", "_25._tcp.mx1.a.test"], ids=["mx", "a", "tlsa"]
)
async def test_what_was_not_validated_does_not_count(unsigned: str) -> None:
    signed = [name for name in SIGNED_TLSA if name != unsigned]
    (first, *_) = await places(zone=TLSA, signed=signed)
    assert demands([first]) == [OPPORTUNISTIC]


@pytest.mark.parametrize(
    ("validating", "settings"), [(False, {}), (True, {"dane": False})], ids=["resolver", "option"]
)
async def test_nothing_is_asked_where_dane_is_off(
    validating: bool, settings: Mapping[str, Any]
) -> None:
    resolver = FakeResolver({**ZONE, **TLSA}, authentic=SIGNED_TLSA)
    found = await places(resolver=resolver, validating=validating, **settings)
    assert demands(found) == [OPPORTUNISTIC] * 3
    assert not [name for name, rdtype in resolver.queries if rdtype == "TLSA"]


async def test_unsigned_hosts_are_not_asked_for_records() -> None:
    """Their name servers may fail on such questions (RFC 7672 §2.2.2)."""
    found = await places(signed=["a.test"], temporary=list(TLSA))
    assert demands(found) == [OPPORTUNISTIC] * 3


async def test_doubt_about_records_passes_the_host_over() -> None:
    found = await places(zone=TLSA, signed=SIGNED_TLSA, temporary=[("_25._tcp.mx1.a.test", "TLSA")])
    assert demands(found) == [None, (Tls.DANE,), (Tls.DANE,)]
    refusal = found[0].refusal
    assert refusal is not None
    assert (refusal.tls_result, refusal.reply.code) == (TlsResult.DNSSEC_INVALID, 451)
    assert refusal.reply.enhanced == "4.4.3"


async def test_records_that_nobody_can_use_demand_encryption_alone() -> None:
    zone = {("_25._tcp.mx1.a.test", "TLSA"): [f"1 1 1 {DIGEST}"]}
    (first, second, _) = await places(
        zone=zone, signed=SIGNED_TLSA, finding=policy(Mode.ENFORCE, "*.a.test")
    )
    assert demands([first, second]) == [(Tls.REQUIRED,), (Tls.AUTHENTICATED,)]
    assert (first.policy, first.lacking) == (PolicyKind.TLSA, TlsResult.TLSA_INVALID)


async def test_the_domain_itself_may_be_the_exchange() -> None:
    zone = {("_25._tcp.implicit.test", "TLSA"): [EE]}
    signed = ["implicit.test", "_25._tcp.implicit.test"]
    assert demands(await places("implicit.test", zone=zone, signed=signed)) == [(Tls.DANE,)]
    # That it has no MX records was not validated.
    signed = [("implicit.test", "A"), "_25._tcp.implicit.test"]
    assert demands(await places("implicit.test", zone=zone, signed=signed)) == [OPPORTUNISTIC]


AT_THE_END, AT_THE_START = "_25._tcp.host.far.test", "_25._tcp.mx.alias.test"
ALL = ["alias.test", "mx.alias.test", "host.far.test", AT_THE_END, AT_THE_START]


@pytest.mark.parametrize(
    ("records", "signed", "base"),
    [
        ([AT_THE_END], ALL, "host.far.test"),
        ([AT_THE_END, AT_THE_START], ALL, "host.far.test"),
        ([AT_THE_START], ALL, "mx.alias.test"),
        # The alias is signed and leads to where nothing is.
        ([AT_THE_START], ["alias.test", "mx.alias.test", AT_THE_START], "mx.alias.test"),
        ([AT_THE_END], ["alias.test", "mx.alias.test", AT_THE_END], None),
        ([AT_THE_START], ["alias.test", "host.far.test", AT_THE_START], None),
    ],
)
async def test_aliases(records: list[str], signed: list[str], base: str | None) -> None:
    zone = {(name, "TLSA"): [EE] for name in records}
    (found,) = await places("alias.test", zone=zone, signed=signed)
    dane = found.ways[0].dane
    assert (dane.base if dane else None) == base
    if dane is not None:
        assert dane.names[0] == base
        assert set(dane.names) == {dane.base, "mx.alias.test", "alias.test"}


async def test_an_alias_in_doubt_passes_the_host_over() -> None:
    (found,) = await places(
        "alias.test", signed=["alias.test"], temporary=[("mx.alias.test", "CNAME")]
    )
    assert demands([found]) == [None]


# --- what is told -------------------------------------------------------------------------------


async def test_a_failure_says_who_demands_what_could_not_be_had() -> None:
    (_, named, _) = await places(finding=policy(Mode.ENFORCE, "mx2.a.test"))
    failed = SessionFailed(Failure.TLS, "it cannot", tls_result=TlsResult.CERTIFICATE_EXPIRED)
    explained = named.explained(failed)
    assert explained.reply == Reply(451, "4.7.10", "MTA-STS of a.test: it cannot")
    assert explained.tls_result is TlsResult.CERTIFICATE_EXPIRED
    lost = SessionFailed(Failure.LOST, "gone")
    assert named.explained(lost) is lost
    (free, *_) = await places()
    assert free.explained(failed) is failed
