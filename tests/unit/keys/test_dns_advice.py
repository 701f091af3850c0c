"""What a domain should publish, and what of it is missing: tables over the live DNS."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.common.config.model import Config
from services.keys.dns_advice import Advice, DnsAdviser
from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.private_key import generate
from services.keys.state import KeyState
from services.keys.store import Complete, Entry
from tests.support.resolver import FakeResolver
from tests.support.zone import Key as Record

_NOW = datetime(2026, 11, 3, tzinfo=UTC)
_PRIVATE = generate(KeyType.ED25519, bits=256)
_P = f"v=DKIM1; k=ed25519; p={_PRIVATE.public}"
_HOST: dict[Record, list[str]] = {
    ("mail.a.test", "A"): ["192.0.2.25"],
    ("mail.a.test", "AAAA"): ["2001:db8::25"],
}


def _config(**changes: Any) -> Config:
    values = {
        "smtp": {"hostname": "mail.a.test"},
        "domains": {"local": ["a.test", "sub.a.test", "mail.a.test"]},
        **changes,
    }
    return Config.model_validate(values)


def _keyring(*states: KeyState) -> Keyring:
    keyring = Keyring()
    for number, state in enumerate(states):
        key = Key(
            domain="a.test",
            selector=f"s{number}",
            key_type=KeyType.ED25519,
            bits=256,
            public=_PRIVATE.public,
            created=_NOW,
            state=state,
        )
        keyring.take(Entry(f"s{number}", key, _PRIVATE, "1"))
    keyring.take(Complete(frozenset(f"s{number}" for number in range(len(states)))))
    return keyring


async def _advice(
    records: dict[Record, list[str]],
    *,
    domain: str = "a.test",
    config: Config | None = None,
    keyring: Keyring | None = None,
    temporary: set[Any] | None = None,
) -> dict[str, Advice]:
    """By the first word of their purposes; DKIM ones by their names."""
    resolver = FakeResolver({**_HOST, **records}, temporary=temporary or set())
    settings = config or _config()
    adviser = DnsAdviser(keyring or _keyring(), resolver, lambda: settings, lambda: _NOW)
    advice = await adviser.advise(domain)
    return {
        each.proposal.name
        if each.proposal.purpose.startswith("DKIM")
        else each.proposal.purpose.partition(":")[0]: each
        for each in advice
    }


async def test_a_new_domain_is_told_everything() -> None:
    advice = await _advice({}, keyring=_keyring(KeyState.PENDING))
    proposed = {
        name: (each.proposal.name, each.proposal.rdtype, each.proposal.value)
        for name, each in advice.items()
    }
    assert proposed == {
        "MX": ("a.test", "MX", "10 mail.a.test"),
        "SPF": ("a.test", "TXT", "v=spf1 a:mail.a.test -all"),
        "s0._domainkey.a.test": ("s0._domainkey.a.test", "TXT", _P),
        "DMARC": ("_dmarc.a.test", "TXT", "v=DMARC1; p=none; rua=mailto:postmaster@a.test"),
        "MTA-STS": ("_mta-sts.a.test", "TXT", "v=STSv1; id=20261103"),
        "TLSRPT": ("_smtp._tls.a.test", "TXT", "v=TLSRPTv1; rua=mailto:postmaster@a.test"),
    }
    assert not any(each.satisfied for each in advice.values())
    assert all(each.current == () for each in advice.values())
    assert advice["MX"].proposal.zone_file == "a.test. IN MX 10 mail.a.test."
    assert advice["SPF"].proposal.zone_file == 'a.test. IN TXT "v=spf1 a:mail.a.test -all"'


async def test_what_was_proposed_and_published_satisfies() -> None:
    keyring = _keyring(KeyState.ACTIVE)
    missing = await _advice({}, keyring=keyring)
    published: dict[Record, list[str]] = {}
    for each in missing.values():
        record = (each.proposal.name, each.proposal.rdtype)
        published.setdefault(record, []).append(each.proposal.value)
    advice = await _advice(published, keyring=keyring)
    assert [name for name, each in advice.items() if not each.satisfied] == []


@pytest.mark.parametrize(
    ("what", "records", "satisfied"),
    [
        ("MX", {("a.test", "MX"): ["10 MAIL.a.test"]}, True),
        ("MX", {("a.test", "MX"): ["5 other.test", "10 mail.a.test"]}, True),
        ("MX", {("a.test", "MX"): ["10 other.test"]}, False),
        ("MX", {("a.test", "MX"): ["0 ."]}, False),
        ("SPF", {("a.test", "TXT"): ["v=spf1 a:mail.a.test -all", "verify=1"]}, True),
        ("SPF", {("a.test", "TXT"): ["v=spf1 mx -all"]}, True),
        ("SPF", {("a.test", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"]}, True),
        ("SPF", {("a.test", "TXT"): ["v=spf1 ip6:2001:db8::/32 -all"]}, True),
        ("SPF", {("a.test", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"]}, False),
        ("SPF", {("a.test", "TXT"): ["v=spf1 ip4:nonsense -all"]}, False),
        ("SPF", {("a.test", "TXT"): ["v=spf1 a -all"]}, False),
        ("SPF", {("a.test", "TXT"): ["v=spf1 -a:mail.a.test -all"]}, False),
        # What an include permits is for those to say who publish it.
        ("SPF", {("a.test", "TXT"): ["v=spf1 include:_spf.b.test -all"]}, True),
        ("SPF", {("a.test", "TXT"): ["v=spf1 redirect=_spf.b.test"]}, True),
        ("SPF", {("a.test", "TXT"): ["v=spf1 mx -all", "v=spf1 a -all"]}, False),
        ("SPF", {("a.test", "TXT"): ["v=spf10 mx"]}, False),
        ("DMARC", {("_dmarc.a.test", "TXT"): ["v=DMARC1; p=reject"]}, True),
        ("DMARC", {("_dmarc.a.test", "TXT"): ["v=DMARC1;p=none"] * 2}, False),
        ("DMARC", {("_dmarc.a.test", "TXT"): ["p=reject"]}, False),
        ("MTA-STS", {("_mta-sts.a.test", "TXT"): ["v=STSv1; id=20200101;"]}, True),
        ("MTA-STS", {("_mta-sts.a.test", "TXT"): ["v=STSv1;"]}, False),
        ("TLSRPT", {("_smtp._tls.a.test", "TXT"): ["v=TLSRPTv1;rua=mailto:x@b.test"]}, True),
        ("TLSRPT", {("_smtp._tls.a.test", "TXT"): ["v=TLSRPTv1"]}, False),
    ],
)
async def test_what_is_there_is_judged(
    what: str, records: dict[Record, list[str]], satisfied: bool
) -> None:
    advice = (await _advice(records))[what]
    assert advice.satisfied is satisfied
    assert advice.error == ""


async def test_values_for_other_purposes_are_left_out() -> None:
    records = {("a.test", "TXT"): ["verify=1", "v=spf1 mx -all", "v=spf1 -all", "spf2.0/pra"]}
    advice = (await _advice(records))["SPF"]  # type: ignore[arg-type]
    assert set(advice.current) == {"v=spf1 mx -all", "v=spf1 -all"}


async def test_a_subdomain_may_inherit_its_dmarc_record() -> None:
    records: dict[Record, list[str]] = {("_dmarc.a.test", "TXT"): ["v=DMARC1; p=reject"]}
    advice = (await _advice(records, domain="sub.a.test"))["DMARC"]
    assert advice.satisfied
    assert advice.current == ("v=DMARC1; p=reject (from _dmarc.a.test)",)


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (KeyState.PENDING, True),
        (KeyState.PUBLISHED, True),
        (KeyState.ACTIVE, True),
        (KeyState.RETIRING, True),
        (KeyState.RETIRED, False),
        (KeyState.DELETED, False),
    ],
)
async def test_records_of_keys_are_wanted_while_they_matter(state: KeyState, wanted: bool) -> None:
    name = "s0._domainkey.a.test"
    advice = await _advice({(name, "TXT"): [_P]}, keyring=_keyring(state))
    assert (name in advice) is wanted
    if wanted:
        assert advice[name].satisfied
        other = await _advice({(name, "TXT"): ["v=DKIM1; p=AAAA"]}, keyring=_keyring(state))
        assert not other[name].satisfied
        assert other[name].current == ("v=DKIM1; p=AAAA",)


async def test_a_domain_that_only_sends_needs_less() -> None:
    advice = await _advice({}, domain="sender.test")
    assert set(advice) == {"SPF", "DMARC"}


@pytest.mark.parametrize(
    ("smarthost", "records", "value", "satisfied"),
    [
        (
            {"host": "smtp.isp.test", "spf_include": "_spf.isp.test"},
            {("a.test", "TXT"): ["v=spf1 mx -all"]},
            "v=spf1 include:_spf.isp.test mx -all",
            False,
        ),
        (
            {"host": "smtp.isp.test", "spf_include": "_spf.isp.test"},
            {("a.test", "TXT"): ["v=spf1 mx include:_spf.isp.test ~all"]},
            "v=spf1 a include:_spf.isp.test -all",
            True,
        ),
        # Found by itself, where the provider has a record at its domain.
        (
            {"host": "smtp.isp.test"},
            {("isp.test", "TXT"): ["v=spf1 ip4:198.51.100.0/24 -all"]},
            "v=spf1 a include:isp.test -all",
            False,
        ),
        # An include without a record behind it would break every check.
        ({"host": "smtp.isp.test"}, {}, "v=spf1 a ?all", False),
    ],
)
async def test_with_a_smarthost_its_provider_is_included(
    smarthost: dict[str, str], records: dict[Record, list[str]], value: str, satisfied: bool
) -> None:
    config = _config(delivery={"smarthost": smarthost})
    advice = (await _advice(records, config=config))["SPF"]
    assert advice.proposal.value == value
    assert advice.satisfied is satisfied


async def test_a_domain_with_a_smarthost_of_its_own_has_that_one_included() -> None:
    own = {"host": "smtp.other.test", "spf_include": "_spf.other.test"}
    common = {"host": "smtp.isp.test", "spf_include": "_spf.isp.test"}
    config = _config(delivery={"smarthost": common, "sender_smarthosts": {"a.test": own}})
    for domain, include in (("a.test", "_spf.other.test"), ("sub.a.test", "_spf.isp.test")):
        advice = (await _advice({}, domain=domain, config=config))["SPF"]
        assert advice.proposal.value == f"v=spf1 a include:{include} -all"


async def test_a_lookup_that_fails_is_told_as_such() -> None:
    advice = await _advice({}, temporary={("a.test", "MX"), ("_dmarc.a.test", "TXT")})
    for what in ("MX", "DMARC"):
        assert "temporary" in advice[what].error
        assert not advice[what].satisfied
    assert advice["SPF"].error == ""


async def test_what_strangers_publish_cannot_draw_on_a_terminal() -> None:
    records: dict[Record, list[str]] = {("_dmarc.a.test", "TXT"): ['"v=DMARC1; \\027[2J\\010"']}
    [value] = (await _advice(records))["DMARC"].current
    assert value.isprintable()


@pytest.mark.parametrize(
    ("there", "smarthost", "proposed"),
    [
        (["v=spf1 ip4:198.51.100.1 -all"], "", "v=spf1 a:mail.a.test ip4:198.51.100.1 -all"),
        (
            ["v=spf1 mx  include:_spf.b.test ~all", "verify=1"],
            "smtp.provider.test",
            "v=spf1 include:provider.test mx include:_spf.b.test ~all",
        ),
        (["v=spf1 mx -all", "v=spf1 a -all"], "", "v=spf1 a:mail.a.test -all"),
        ([], "smtp.provider.test", "v=spf1 a include:provider.test -all"),
    ],
    ids=["address", "smarthost", "two records", "none"],
)
async def test_what_an_spf_record_says_already_is_kept(
    there: list[str], smarthost: str, proposed: str
) -> None:
    delivery = {"smarthost": {"host": smarthost, "spf_include": smarthost and "provider.test"}}
    records = {("a.test", "TXT"): there}
    advice = (await _advice(records, config=_config(delivery=delivery)))["SPF"]
    assert advice.proposal.value == proposed
    assert not advice.satisfied
    # And it will do.
    mended = {("a.test", "TXT"): [proposed]}
    assert (await _advice(mended, config=_config(delivery=delivery)))["SPF"].satisfied
