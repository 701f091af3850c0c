"""Which body hashes signatures ask for; the hashing itself is tested with `BodyHash`."""

import hashlib
from collections.abc import Callable
from functools import partial

import pytest
from dkim.canonicalization import Relaxed, Simple

from gatepost.policy.v1.policy_pb2 import CheckMessageRequest, HeaderAndDigests, Session
from services.common.mail.message import HeaderField, parse_header
from services.ingress.body_digests import MAX_SIGNATURES, BodyDigests, wanted_digests
from services.policy.arc.sets import parse_message_signature
from services.policy.dkim import verification
from services.policy.dkim.signature import BadSignature, Signature, parse_signature
from services.policy.requests import read_envelope, read_mail

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
    ([_signature("c=relaxed/relaxed", "l", "i")], [("relaxed", None)]),
    ([_signature("c=relaxed/relaxed", f"l={10**30}")], [("relaxed", 10**18)]),
    ([_signature("c=relaxed/relaxed", f"l={10**76}")], []),
    ([_signature("c=Relaxed/RELAXED")], [("relaxed", None)]),
    ([_signature("i=1", name="ARC-Message-Signature")], [("relaxed", None)]),
    ([_signature("i=1", "c=relaxed", name="ARC-Message-Signature")], [("simple", None)]),
    # Of a chain the newest counts, wherever it stands.
    (
        [
            _signature("i=2", "c=relaxed/relaxed", "l=2", name="ARC-Message-Signature"),
            _signature("i=10", "c=relaxed/relaxed", name="ARC-Message-Signature"),
            _signature("i=9", "c=relaxed/simple", name="ARC-Message-Signature"),
        ],
        [("relaxed", None)],
    ),
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
    fields = [_signature(f"l={length}") for length in range(500)]
    chain = [_signature(f"i={n}", f"l={n}", name="ARC-Message-Signature") for n in range(50)]
    header = parse_header(b"".join(fields + chain))
    # However many stand before it, the newest of a chain has its digest.
    assert len(wanted_digests(header)) == MAX_SIGNATURES + 1
    assert wanted_digests(header)[-1] == ("relaxed", 49)


C_TAGS = ["", "c=simple; ", "c=relaxed; ", "c=simple/relaxed; ", "c=Relaxed/Simple; ", "c=/; "]
L_TAGS = ["", "l=4; ", "l=0; ", "l=11; ", "l=1000; ", f"l={10**19}; ", "l=x; "]
SIGNATURE = "i={}; a=rsa-sha256; {}{}d=example.org; s=s; h=from; bh=YQ==; b=YQ=="


@pytest.mark.parametrize("c_tag", C_TAGS)
@pytest.mark.parametrize("l_tag", L_TAGS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("DKIM-Signature", partial(parse_signature, now=0)),
        ("ARC-Message-Signature", parse_message_signature),
    ],
)
def test_policy_finds_a_digest_for_whatever_it_understands(
    name: str, read: Callable[[HeaderField], Signature], c_tag: str, l_tag: str
) -> None:
    instance = "1" if name.startswith("ARC") else "@example.org; v=1"
    field = f"{name}: {SIGNATURE.format(instance, c_tag, l_tag)}\r\n"
    header = parse_header(field.encode())
    digests = BodyDigests(header)
    digests.update(_BODY)
    try:
        signature = read(header.fields[0])
    except BadSignature:
        return
    request = CheckMessageRequest(
        session=Session(client_address="192.0.2.1", helo="client.example.net"),
        recipients=["you@example.test"],
        header=HeaderAndDigests(header_block=bytes(header), body_digests=digests.results()),
    )
    mail = read_mail(request, read_envelope(request))
    found = mail.body_digest(signature.body_canonicalization, signature.body_length)
    assert found is not None
    algorithm = {"simple": Simple, "relaxed": Relaxed}[signature.body_canonicalization]
    canonical = algorithm.canonicalize_body(_BODY)[: signature.body_length]
    assert found.digest == hashlib.sha256(canonical).digest()


def test_policy_looks_at_as_many_signatures() -> None:
    assert verification.MAX_SIGNATURES == MAX_SIGNATURES
