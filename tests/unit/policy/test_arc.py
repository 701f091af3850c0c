"""ARC: which chains are whole (RFC 8617 §5.2), and what a trusted forwarder's word is good for."""

import time

import pytest

from services.common.mail.message import parse_header
from services.policy.action import Action
from services.policy.arc.chain import verify_chain
from services.policy.arc.result import NO_CHAIN, ArcResult
from services.policy.arc.testimony import witnesses
from services.policy.checks import arc
from services.policy.checks.check import Finding, Standing
from tests.support.arc_sealer import seal
from tests.support.dkim_signer import KEY_NAME, ed25519_key, record, rsa_key
from tests.support.resolver import FakeResolver
from tests.support.subjects import mail, means

MESSAGE = "From: Ann <ann@bank.test>\nTo: list@example.org\nSubject: hello\n\nHello.\n"
# RFC 8601 Appendix B.7, with either result
COMMENTED = (
    "dkim (Because I like it) / 1 (One yay) = (wait for it) {} policy (A dot can go here) . (like"
    " that) expired (this surprised me) = (as I wasn't expecting it) 1362471462"
)
OTHER_KEY = "sel._domainkey.forward.test"


def sealed(count: int) -> str:
    text = MESSAGE
    for _ in range(count):
        text = seal(text, rsa_key())
    return text


async def verified(text: str, *, key: str | None = None, temporary: bool = False) -> ArcResult:
    keys = {(KEY_NAME, "TXT"): [key or record(rsa_key())], (OTHER_KEY, "TXT"): [record(rsa_key())]}
    resolver = FakeResolver(keys, temporary={KEY_NAME} if temporary else ())
    return await verify_chain(mail(text), resolver)


@pytest.mark.parametrize(("count", "oldest"), [(1, 0), (2, 0), (3, 0), (11, 0), (12, 2), (13, 3)])
async def test_whole_chains(count: int, oldest: int) -> None:
    """Of a chain that nobody changed the oldest signature passes; the next ten are looked at."""
    result = await verified(sealed(count))
    assert (result.result, result.sealers) == ("pass", ("example.org",) * count)
    assert result.oldest_pass == oldest


async def test_mail_without_arc_has_no_chain() -> None:
    assert await verified(MESSAGE) is NO_CHAIN


@pytest.mark.parametrize(
    ("before", "after", "oldest"),
    [(1, 1, 2), (1, 3, 2), (2, 1, 3), (3, 2, 4)],
    ids=["first", "first of four", "second", "third of five"],
)
async def test_what_a_later_hop_changed_is_covered_by_its_own_set(
    before: int, after: int, oldest: int
) -> None:
    """RFC 8617 §5.2, step 5: the result tells since when nothing was changed."""
    text = sealed(before).replace("Hello.", "Hello. Footer.")
    for _ in range(after):
        text = seal(text, rsa_key())
    result = await verified(text)
    assert (result.result, result.oldest_pass) == ("pass", oldest)


async def test_an_older_signature_whose_key_is_gone_or_silent_breaks_no_chain() -> None:
    text = seal(MESSAGE, rsa_key(), signature_selector="old")
    text = seal(seal(text, rsa_key()), rsa_key())
    assert (await verified(text)).oldest_pass == 2
    keys = {(KEY_NAME, "TXT"): [record(rsa_key())]}
    silent = FakeResolver(keys, temporary={"old._domainkey.example.org"})
    result = await verify_chain(mail(text), silent)
    assert (result.result, result.oldest_pass) == ("pass", 2)
    keys[("old._domainkey.example.org", "TXT")] = [record(rsa_key())]
    assert (await verify_chain(mail(text), FakeResolver(keys))).oldest_pass == 0


async def test_an_older_signature_that_cannot_be_read_breaks_no_chain() -> None:
    text = seal(MESSAGE, rsa_key(), signature_tags=" l=x;")
    result = await verified(seal(text, rsa_key()))
    assert (result.result, result.oldest_pass) == ("pass", 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Hello.", "Hallo."),
        ("Subject: hello", "Subject: help"),
        ("i=1; mx.example.org; spf=pass", "i=1; mx.example.org; spf=fail"),
        ("cv=pass", "cv=none"),
        ("cv=none", "cv=pass"),
        ("cv=none", "cv=fail"),
        ("ARC-Authentication-Results: i=1", "X-Gone: i=1"),
        ("ARC-Authentication-Results: i=2", "ARC-Authentication-Results: i=3"),
        ("ARC-Seal: i=1", "X-Gone: i=1"),
        ("ARC-Message-Signature: i=2", "X-Gone: i=2"),
        ("ARC-Seal: i=2", "ARC-Seal: i=1"),
        ("ARC-Seal: i=2", "ARC-Seal: i=0"),
        ("ARC-Seal: i=2", "ARC-Seal: i=51"),
        ("ARC-Seal: i=2", "ARC-Seal: i=two"),
        ("ARC-Seal: i=2; a=rsa-sha256", "ARC-Seal: i=2; a=rsa-sha1"),
        ("ARC-Seal: i=2;", "ARC-Seal: i=2; h=from;"),
        ("ARC-Seal: i=2;", "ARC-Seal: i=2; i=2;"),
        ("s=sel;", "s=gone;"),
        ("h=from:to:subject", "h=from:to:arc-seal"),
    ],
)
async def test_chains_that_do_not_hold(old: str, new: str) -> None:
    text = sealed(2)
    assert old in text
    result = await verified(text.replace(old, new))
    assert result.result == "fail"
    assert "instance" in result.reason or "ARC-" in result.reason
    assert not result.testimonies


@pytest.mark.parametrize(
    "key",
    [record(rsa_key(2048)), record(ed25519_key()), record(rsa_key(), p=""), "not a key"],
    ids=["another", "ed25519", "revoked", "no key"],
)
async def test_keys_that_do_not_fit(key: str) -> None:
    assert (await verified(sealed(1), key=key)).result == "fail"


@pytest.mark.parametrize(("count", "said"), [(1, "cv=none"), (2, "cv=pass"), (2, "cv=none")])
async def test_a_chain_that_says_of_itself_that_it_failed(count: int, said: str) -> None:
    """RFC 8617 §5.2, step 2: such a chain fails, and nothing else of it is looked at."""
    result = await verified(sealed(count).replace(said, "cv=fail"))
    instance = 1 if said == "cv=none" else 2
    assert (result.result, result.reason) == (
        "fail",
        f"the seal of instance {instance} says cv=fail",
    )


async def test_a_chain_over_the_limit_does_not_hold_and_costs_little() -> None:
    fields = "".join(
        f"ARC-Seal: i={n}\nARC-Message-Signature: i={n}\nARC-Authentication-Results: i={n};\n"
        for n in range(1, 200)
    )
    started = time.process_time()
    assert (await verified(fields + MESSAGE)).result == "fail"
    long = "ARC-Seal: i=1; b=" + "A" * 200_000 + "\n" + MESSAGE
    assert (await verified(long)).reason == "the ARC fields are too long"
    assert time.process_time() - started < 0.5


async def test_a_key_that_cannot_be_looked_up_is_temporary() -> None:
    assert (await verified(sealed(1), temporary=True)).result == "temperror"


def chain(*hops: tuple[str, str], result: str = "pass") -> ArcResult:
    fields = parse_header(
        "".join(f"ARC-Authentication-Results: i=1; mx.{d}; {saw}\r\n" for d, saw in hops).encode()
    ).fields
    return ArcResult(result, "", tuple(domain for domain, _ in hops), fields)


@pytest.mark.parametrize(
    ("hops", "seen"),
    [
        ([("list.test", "spf=pass; dkim=pass; dmarc=pass")], {"spf", "dkim", "dmarc"}),
        ([("mx.list.test", "dmarc=pass")], {"dmarc"}),
        ([("list.test", "dmarc=fail; spf=softfail; dkim=none")], set()),
        ([("list.test", "DMARC = Pass (p=reject) header.from=x")], {"dmarc"}),
        ([("list.test", 'spf=fail reason="; dmarc=pass"')], set()),
        ([("list.test", "spf=fail (really; dmarc=pass; (nested))")], set()),
        ([("other.test", "dmarc=pass")], set()),
        ([("notlist.test", "dmarc=pass")], set()),
        # RFC 8601 Appendix B
        ([("list.test", "none")], set()),
        ([("list.test", "spf=pass smtp.mailfrom=example.net")], {"spf"}),
        (
            [
                (
                    "list.test",
                    "auth=pass (cram-md5) smtp.auth=a@b.test; spf=pass smtp.mailfrom=b.test",
                )
            ],
            {"spf"},
        ),
        ([("list.test", "sender-id=pass header.from=example.com")], set()),
        ([("list.test", "dkim=pass (good signature) header.d=example.com")], {"dkim"}),
        (
            [
                (
                    "list.test",
                    'dkim=pass reason="good" header.i=@a.test; dkim=fail reason="bad"',
                )
            ],
            {"dkim"},
        ),
        ([("list.test", COMMENTED.format("fail"))], set()),
        ([("list.test", COMMENTED.format("pass"))], {"dkim"}),
        # A string without its end hides what comes after it
        ([("list.test", 'spf=pass; dkim=fail reason="a; dmarc=pass')], {"spf"}),
        ([("list.test", 'spf=pass; dkim=fail reason="a; dmarc=pass\\')], {"spf"}),
        # Trust ends at the first sealer, from the last one back, who is not trusted
        ([("list.test", "dmarc=pass"), ("other.test", "arc=pass; dmarc=fail")], set()),
        ([("other.test", "dmarc=pass"), ("list.test", "dmarc=fail")], set()),
        ([("list.test", "dmarc=pass"), ("second.test", "arc=pass; dmarc=fail")], {"dmarc"}),
    ],
)
def test_what_trusted_sealers_saw(hops: list[tuple[str, str]], seen: set[str]) -> None:
    trusted = ("list.test", "second.test")
    assert set(witnesses(chain(*hops), trusted)) == seen
    assert witnesses(chain(*hops, result="fail"), trusted) == {}
    assert witnesses(chain(*hops), ()) == {}


@pytest.mark.parametrize("odd", ['\\"', '"\\', '"', "(", "()", "a=", " "])
def test_odd_testimony_takes_little_time(odd: str) -> None:
    begun = time.process_time()
    heard = witnesses(chain(("list.test", "spf=pass; " + odd * 50_000)), ("list.test",))
    assert time.process_time() - begun < 3.0  # quadratic, it takes a minute
    assert set(heard) == {"spf"}


def test_a_failure_can_be_outweighed() -> None:
    failed = Finding("fail", Standing.OBJECTS, "Nothing is aligned.", (), Action.REFUSE)
    heard = arc.overruled("dmarc_fail", failed, {"dmarc": "list.test"})
    assert (heard.result, heard.standing, heard.action) == ("fail", Standing.CLEAR, None)
    assert heard.explanation.endswith("But list.test, a trusted forwarder, saw it pass.")
    assert arc.overruled("dmarc_fail", failed, {"spf": "list.test"}) is failed
    assert arc.overruled("from_mismatch", failed, {"dmarc": "list.test"}) is failed


async def test_the_check_tells_and_never_objects() -> None:
    judged = mail(sealed(2))
    judged.arc = await verified(sealed(2))
    use = means(FakeResolver(), {"arc": {"trusted_sealers": ["example.org"]}})
    finding = await arc.find(judged, use)
    assert (finding.result, finding.standing) == ("pass", Standing.CLEAR)
    assert ("arc.sealers", "example.org, example.org") in finding.evidence
    assert ("arc.trusted", "example.org saw dmarc=pass") in finding.evidence
    assert ("arc.oldest_pass", "0") in finding.evidence
    key = ("dns.txt", f"{KEY_NAME}: {record(rsa_key())}")
    assert key in finding.evidence
    judged.arc = await verified(sealed(2).replace("Hello.", "Hallo."))
    assert key in (await arc.find(judged, use)).evidence
    judged.arc = await verified(sealed(2), temporary=True)
    finding = await arc.find(judged, use)
    assert (finding.result, finding.standing) == ("temperror", Standing.CLEAR)
    assert any(name == "dns.txt" and KEY_NAME in value for name, value in finding.evidence)
    judged.arc = ArcResult("fail", "the seal of instance 1 is not valid")
    assert (await arc.find(judged, use)).standing is Standing.CLEAR
