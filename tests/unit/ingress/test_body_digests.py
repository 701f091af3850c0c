"""Which body hashes signatures ask for; the hashing itself is tested with `BodyHash`."""

import hashlib

import pytest
from dkim.canonicalization import Relaxed, Simple

from services.common.mail.message import parse_header
from services.ingress.body_digests import MAX_DIGESTS, BodyDigests, wanted_digests

_BODY = b"a  b \r\n\r\nc\t\r\n\r\n\r\n"


def _signature(*tags: str, name: str = "DKIM-Signature") -> bytes:
    return f"{name}: v=1; a=rsa-sha256; {'; '.join(tags)}; b=YQ==\r\n".encode()


SIGNATURES = [
    ([], []),
    ([_signature("c=relaxed/relaxed")], [("relaxed", None)]),
    ([_signature("c=relaxed/simple")], [("simple", None)]),
    ([_signature("c=relaxed")], [("simple", None)]),
    ([_signature("d=example.org")], [("simple", None)]),
    ([_signature("c=relaxed/relaxed", "l=12")], [("relaxed", 12)]),
    ([_signature("c = relaxed / relaxed", "l = 0")], [("relaxed", 0)]),
    ([_signature("c=relaxed/\r\n relaxed")], [("relaxed", None)]),
    ([_signature("c=relaxed/relaxed"), _signature("c=simple/relaxed")], [("relaxed", None)]),
    (
        [_signature("c=relaxed/relaxed"), _signature("c=simple/simple", "l=5")],
        [("relaxed", None), ("simple", 5)],
    ),
    ([_signature("c=relaxed/relaxed", name="ARC-Message-Signature")], [("relaxed", None)]),
    ([_signature("c=relaxed/other")], []),
    ([_signature("c=relaxed/relaxed", "l=-1")], []),
    ([_signature("c=relaxed/relaxed", "l=1e3")], []),
    ([_signature("c=relaxed/relaxed", f"l={10**30}")], []),
    ([b"X-DKIM-Signature: c=relaxed/relaxed\r\n"], []),
]


@pytest.mark.parametrize(("fields", "wanted"), SIGNATURES)
def test_signatures_name_what_they_need(
    fields: list[bytes], wanted: list[tuple[str, int | None]]
) -> None:
    assert list(wanted_digests(parse_header(b"".join(fields)))) == wanted


def test_digests_are_those_of_dkimpy() -> None:
    header = parse_header(
        _signature("c=relaxed/relaxed")
        + _signature("c=simple/simple")
        + _signature("c=relaxed/relaxed", "l=4")
    )
    digests = BodyDigests(header)
    for octet in _BODY:
        digests.update(bytes((octet,)))
    relaxed, simple, cut = digests.results()
    canonical = Relaxed.canonicalize_body(_BODY)
    assert relaxed.digest == hashlib.sha256(canonical).digest()
    assert relaxed.covered_octets == relaxed.total_octets == len(canonical)
    assert simple.digest == hashlib.sha256(Simple.canonicalize_body(_BODY)).digest()
    assert cut.digest == hashlib.sha256(canonical[:4]).digest()
    assert (cut.canonicalization, cut.hash_algorithm) == ("relaxed", "sha256")
    assert (cut.covered_octets, cut.total_octets) == (4, len(canonical))


def test_hundreds_of_signatures_cost_no_more_than_a_few() -> None:
    header = parse_header(b"".join(_signature(f"l={length}") for length in range(500)))
    assert len(wanted_digests(header)) == MAX_DIGESTS
