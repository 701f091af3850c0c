"""DMARC: the examples of RFC 9989, its tree walk, alignment, records, and several authors."""

import pytest

from services.policy.action import Action
from services.policy.checks import dmarc_fail
from services.policy.checks.check import Finding, Standing
from services.policy.dkim.signature import Label
from services.policy.dkim.verification import SignatureResult
from services.policy.dmarc.evaluation import Outcome, evaluate
from services.policy.dmarc.record import Preference, parse_record
from services.policy.dmarc.walk import targets, walk
from services.policy.identifiers import Identifiers
from tests.support.resolver import FakeResolver
from tests.support.subjects import mail, means
from tests.support.zone import Key

Zone = dict[Key, list[str]]

REJECT = "v=DMARC1; p=reject"


def zone(records: dict[str, str]) -> Zone:
    return {(f"_dmarc.{domain}", "TXT"): [text] for domain, text in records.items()}


async def judged(
    domain: str,
    records: dict[str, str],
    *,
    spf: str = "",
    dkim: tuple[str, ...] = (),
    more: Zone | None = None,
    temporary: set[str] | None = None,
    incomplete: bool = False,
) -> Outcome:
    resolver = FakeResolver({**zone(records), **(more or {})}, temporary=temporary or ())
    return await evaluate(domain, Identifiers(spf, dkim, incomplete), resolver)


def test_a_walk_asks_at_most_eight_times() -> None:
    assert list(targets("a.b.c.d.e.f.g.h.i.j.mail.example.com")) == [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com",
        "h.i.j.mail.example.com",
        "i.j.mail.example.com",
        "j.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    ]
    assert list(targets("a.mail.example.com")) == [
        "a.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    ]
    assert list(targets("com")) == ["com"]
    assert len(list(targets("1.2.3.4.5.6.7.8"))) == 8
    assert len(list(targets("1.2.3.4.5.6.7"))) == 7


@pytest.mark.parametrize(
    ("start", "records", "organization", "policy"),
    [
        # The examples at the end of RFC 9989 §4.10.2
        (
            "a.mail.example.com",
            {"mail.example.com": REJECT, "example.com": REJECT},
            "example.com",
            "example.com",
        ),
        (
            "a.mail.example.com",
            {"mail.example.com": "v=DMARC1; psd=n", "example.com": REJECT},
            "mail.example.com",
            "mail.example.com",
        ),
        ("a.mail.example.com", {"com": "v=DMARC1; psd=y"}, "example.com", "com"),
        # Its Appendix on tree walks
        (
            "example.com",
            {"example.com": REJECT, "signing.example.com": REJECT},
            "example.com",
            "example.com",
        ),
        (
            "signing.example.com",
            {"example.com": REJECT, "signing.example.com": REJECT},
            "example.com",
            "signing.example.com",
        ),
        (
            "a.b.c.d.e.f.g.h.i.j.k.example.com",
            {"example.com": REJECT},
            "example.com",
            "example.com",
        ),
        (
            "mail.giant.bank.example",
            {"giant.bank.example": REJECT, "bank.example": "v=DMARC1; psd=y"},
            "giant.bank.example",
            "giant.bank.example",
        ),
        (
            "mail.mega.bank.example",
            {"bank.example": "v=DMARC1; psd=y"},
            "mega.bank.example",
            "bank.example",
        ),
        # A suffix itself, and nobody at all
        ("bank.example", {"bank.example": "v=DMARC1; psd=y"}, "bank.example", "bank.example"),
        ("example.com", {}, "example.com", None),
    ],
)
async def test_organizational_domain_and_policy(
    start: str, records: dict[str, str], organization: str, policy: str | None
) -> None:
    found = await walk(start, FakeResolver(zone(records)))
    assert found.organizational_domain == organization
    assert (found.policy[0] if found.policy else None) == policy


@pytest.mark.parametrize(
    ("spf", "dkim", "record", "result"),
    [
        ("example.com", (), REJECT, "pass"),
        ("bounce.example.com", (), REJECT, "pass"),
        ("example.net", (), REJECT, "fail"),
        ("notexample.com", (), REJECT, "fail"),
        ("", ("example.com",), REJECT, "pass"),
        ("", ("a.b.example.com",), REJECT, "pass"),
        ("", ("example.net", "example.com"), REJECT, "pass"),
        ("", ("com",), REJECT, "fail"),
        ("", (), REJECT, "fail"),
        ("bounce.example.com", (), "v=DMARC1; p=reject; aspf=s", "fail"),
        ("bounce.example.com", ("x.example.com",), "v=DMARC1; p=reject; aspf=s", "pass"),
        ("", ("x.example.com",), "v=DMARC1; p=reject; adkim=s", "fail"),
        ("", ("example.com",), "v=DMARC1; p=reject; adkim=s; aspf=s", "pass"),
    ],
)
async def test_alignment(spf: str, dkim: tuple[str, ...], record: str, result: str) -> None:
    outcome = await judged("example.com", {"example.com": record}, spf=spf, dkim=dkim)
    assert outcome.result == result


@pytest.mark.parametrize("mechanism", ["spf", "dkim"])
@pytest.mark.parametrize(
    ("author", "authenticated", "strict", "relaxed"),
    [
        # Appendix B.1 of RFC 9989
        ("example.com", "example.com", "pass", "pass"),
        ("example.com", "child.example.com", "fail", "pass"),
        ("child.example.com", "example.com", "fail", "pass"),
        ("child.example.com", "other.example.com", "fail", "pass"),
        ("example.com", "example.net", "fail", "fail"),
        ("child.example.com", "example.net", "fail", "fail"),
    ],
)
async def test_alignment_of_parents_and_children(
    author: str, authenticated: str, strict: str, relaxed: str, mechanism: str
) -> None:
    spf, dkim = (authenticated, ()) if mechanism == "spf" else ("", (authenticated,))
    for mode, result in (("s", strict), ("r", relaxed)):
        records = {"example.com": f"v=DMARC1; p=reject; aspf={mode}; adkim={mode}"}
        assert (await judged(author, records, spf=spf, dkim=dkim)).result == result


async def test_a_subdomain_with_an_owner_of_its_own_is_not_aligned() -> None:
    records = {"example.com": REJECT, "tenant.example.com": "v=DMARC1; psd=n"}
    outcome = await judged("example.com", records, dkim=("x.tenant.example.com",))
    assert outcome.result == "fail"


async def test_neighbours_under_a_public_suffix_are_not_aligned() -> None:
    records = {"bank.example": "v=DMARC1; psd=y; p=reject", "giant.bank.example": REJECT}
    outcome = await judged("giant.bank.example", records, dkim=("mail.mega.bank.example",))
    assert outcome.result == "fail"


EXISTS: Zone = {("sub.example.com", "A"): ["192.0.2.1"]}


@pytest.mark.parametrize(
    ("domain", "record", "preference"),
    [
        ("example.com", "v=DMARC1; p=none; sp=reject; np=reject", Preference.NONE),
        ("sub.example.com", "v=DMARC1; p=none; sp=reject", Preference.REJECT),
        ("sub.example.com", "v=DMARC1; p=reject", Preference.REJECT),
        ("sub.example.com", "v=DMARC1; p=reject; sp=none", Preference.NONE),
        ("sub.example.com", "v=DMARC1; p=none; sp=quarantine; np=reject", Preference.QUARANTINE),
        ("gone.example.com", "v=DMARC1; p=none; sp=quarantine; np=reject", Preference.REJECT),
        ("gone.example.com", "v=DMARC1; p=none; sp=quarantine", Preference.QUARANTINE),
        ("gone.example.com", "v=DMARC1; p=quarantine", Preference.QUARANTINE),
        ("example.com", "v=DMARC1; p=reject; t=y", Preference.QUARANTINE),
        ("example.com", "v=DMARC1; p=quarantine; t=y", Preference.NONE),
        ("example.com", "v=DMARC1; p=none; t=y", Preference.NONE),
        ("example.com", "v=DMARC1", Preference.NONE),
    ],
)
async def test_what_is_asked_for(domain: str, record: str, preference: Preference) -> None:
    outcome = await judged(domain, {"example.com": record}, more=EXISTS)
    assert (outcome.result, outcome.preference) == ("fail", preference)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("v=DMARC1; p=none", True),
        ("v=DMARC1;p=none;", True),
        ("v = DMARC1 ; p = none", True),
        ("V=DMARC1; p=none", True),
        ("v=dmarc1; p=none", False),
        ("v=DMARC2; p=none", False),
        ("p=none; v=DMARC1", False),
        ("v=DMARC1x; p=none", False),
        ("v=spf1 -all", False),
        ("", False),
        ("v=DMARC1; p=none; garbage; =x; unknown=1", True),
    ],
)
def test_records(text: str, valid: bool) -> None:
    assert (parse_record(text.encode()) is not None) == valid


@pytest.mark.parametrize(
    ("record", "result", "preference"),
    [
        ("v=DMARC1; p=rejekt", "permerror", Preference.NONE),
        ("v=DMARC1; p=reject; sp=x", "permerror", Preference.NONE),
        ("v=DMARC1; p=rejekt; rua=mailto:a@example.com", "fail", Preference.NONE),
        ("v=DMARC1; p=REJECT", "fail", Preference.REJECT),
        ("v=DMARC1; p=reject; pct=0", "fail", Preference.REJECT),
        ("v=DMARC1; p=reject; adkim=x; psd=maybe", "fail", Preference.REJECT),
        ("v=DMARC1; p=reject; p=none", "fail", Preference.REJECT),
    ],
)
async def test_records_with_mistakes(record: str, result: str, preference: Preference) -> None:
    outcome = await judged("example.com", {"example.com": record})
    assert (outcome.result, outcome.preference) == (result, preference)


async def test_two_records_are_none() -> None:
    two: Zone = {("_dmarc.example.com", "TXT"): [REJECT, "v=DMARC1; p=none", "unrelated"]}
    assert (await judged("example.com", {}, more=two)).result == "none"
    one: Zone = {("_dmarc.example.com", "TXT"): ["unrelated", REJECT]}
    assert (await judged("example.com", {}, more=one)).result == "fail"


@pytest.mark.parametrize(
    ("temporary", "dkim", "incomplete", "result"),
    [
        ({"_dmarc.example.com"}, ("example.com",), False, "temperror"),
        ({"_dmarc.x.example.com"}, ("x.example.com",), False, "temperror"),
        # §4.10.2: a domain with a record of its own needs no walk for what is the same domain
        ({"_dmarc.com"}, ("example.com",), False, "pass"),
        ({"_dmarc.com"}, ("x.example.com", "example.com"), False, "pass"),
        ({"_dmarc.com"}, ("x.example.com",), False, "temperror"),
        # Whose organization "com" is cannot be told
        ({"_dmarc.com"}, ("example.net", "other.com"), False, "temperror"),
        ({"_dmarc.com"}, ("example.net",), False, "fail"),
        ({"_dmarc.com"}, (), False, "fail"),
        ({"_dmarc.com"}, (), True, "temperror"),
        # One domain in doubt takes nothing from another
        ({"_dmarc.x.example.com"}, ("x.example.com", "y.example.com"), False, "pass"),
        (set(), (), True, "temperror"),
        (set(), ("example.com",), True, "pass"),
    ],
)
async def test_what_cannot_be_told(
    temporary: set[str], dkim: tuple[str, ...], incomplete: bool, result: str
) -> None:
    outcome = await judged(
        "example.com",
        {"example.com": REJECT},
        dkim=dkim,
        temporary=temporary,
        incomplete=incomplete,
    )
    assert outcome.result == result


@pytest.mark.parametrize(
    ("author", "temporary", "result"),
    [
        ("sub.example.com", "_dmarc.com", "temperror"),
        ("sub.example.com", "_dmarc.sub.example.com", "temperror"),
        ("strict.example.com", "_dmarc.example.com", "fail"),
        ("strict.example.com", "_dmarc.com", "fail"),
    ],
)
async def test_what_the_policy_of_a_subdomain_depends_on(
    author: str, temporary: str, result: str
) -> None:
    records = {
        "example.com": REJECT,
        "strict.example.com": "v=DMARC1; p=quarantine; adkim=s",
    }
    outcome = await judged(author, records, dkim=("example.com",), temporary={temporary})
    assert outcome.result == result
    if result == "fail":
        assert (outcome.preference, outcome.organization) == (Preference.QUARANTINE, "")
        assert outcome.answers[-1].name == temporary


async def found(
    header: str, *, spf: str = "", dkim: str = "", sender: str = "x@example.net", **policy: object
) -> Finding:
    judged_mail = mail(f"{header}\n\nhello\n", sender)
    judged_mail.spf_result, judged_mail.spf_domain = ("pass", spf) if spf else ("none", "")
    if dkim:
        judged_mail.signatures = (SignatureResult(Label(dkim), "pass"),)
    records = {"bank.test": REJECT, "shop.test": "v=DMARC1; p=quarantine", "blog.test": "v=DMARC1"}
    return await dmarc_fail.find(judged_mail, means(FakeResolver(zone(records)), policy))


HONOUR = {"honour_published": True}


@pytest.mark.parametrize(
    ("header", "result", "standing", "honoured"),
    [
        ("From: a@bank.test", "fail", Standing.OBJECTS, Action.REFUSE),
        ("From: a@sub.bank.test", "fail", Standing.OBJECTS, Action.REFUSE),
        ("From: a@shop.test", "fail", Standing.OBJECTS, Action.SPAM),
        ("From: a@blog.test", "fail", Standing.CLEAR, None),
        ("From: a@other.test", "none", Standing.CLEAR, None),
        ("From: a@[192.0.2.1]", "none", Standing.CLEAR, None),
        ("Subject: no author", "none", Standing.CLEAR, None),
        # Several authors: the strictest failure counts
        ("From: a@blog.test, b@bank.test", "fail", Standing.OBJECTS, Action.REFUSE),
        ("From: a@shop.test\nFrom: b@bank.test", "fail", Standing.OBJECTS, Action.REFUSE),
        ("From: a@other.test, b@other.test", "none", Standing.CLEAR, None),
        (
            "From: " + ", ".join(f"a@d{n}.test" for n in range(6)),
            "permerror",
            Standing.OBJECTS,
            None,
        ),
        ("From: ceo <ceo@bank.test", "permerror", Standing.OBJECTS, None),
        ("From: a@other.test\nFrom: ceo <ceo@bank.test", "permerror", Standing.OBJECTS, None),
        ("From: ceo <ceo@bank.test\nFrom: a@other.test", "permerror", Standing.OBJECTS, None),
    ],
)
async def test_findings(
    header: str, result: str, standing: Standing, honoured: Action | None
) -> None:
    finding = await found(header)
    assert (finding.result, finding.standing, finding.action) == (result, standing, None)
    finding = await found(header, dmarc=HONOUR)
    assert (finding.standing, finding.action) == (standing, honoured)


async def test_either_mechanism_will_do() -> None:
    assert (await found("From: a@bank.test", spf="mail.bank.test")).result == "pass"
    assert (await found("From: a@bank.test", dkim="bank.test")).result == "pass"
    assert (await found("From: a@bank.test", spf="example.net", dkim="shop.test")).result == "fail"


async def test_the_evidence_names_record_domains_and_policy() -> None:
    finding = await found("From: a@sub.bank.test")
    assert finding.evidence == (
        ("dmarc.from", "sub.bank.test"),
        ("dmarc.authenticated", "none"),
        ("dns.txt", f"_dmarc.bank.test: {REJECT}"),
        ("dmarc.organizational_domain", "bank.test"),
        ("dmarc.policy_domain", "bank.test"),
        ("dmarc.policy", "reject"),
    )
    assert finding.explanation.endswith("is aligned with sub.bank.test, which asks for reject.")


async def test_the_evidence_names_what_was_authenticated_and_what_of_it_is_aligned() -> None:
    passed = await found("From: a@sub.bank.test", spf="example.net", dkim="bank.test")
    assert passed.evidence == (
        ("dmarc.from", "sub.bank.test"),
        ("dmarc.authenticated", "spf=example.net, dkim=bank.test"),
        ("dns.txt", f"_dmarc.bank.test: {REJECT}"),
        ("dmarc.organizational_domain", "bank.test"),
        ("dmarc.policy_domain", "bank.test"),
        ("dmarc.aligned", "dkim=bank.test"),
    )
    assert passed.explanation == "The DKIM domain bank.test is aligned with sub.bank.test."
    failed = await found("From: a@sub.bank.test", spf="example.net", dkim="shop.test")
    assert ("dmarc.authenticated", "spf=example.net, dkim=shop.test") in failed.evidence
    assert "dmarc.aligned" not in dict(failed.evidence)
