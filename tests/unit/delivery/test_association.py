"""Certificates against TLSA records: RFC 6698 §2.1, RFC 7671 §5 and §9."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.dns import TlsaRecord
from services.delivery.tls.association import judge, public_key_info, usable
from services.delivery.tls.report import TlsResult
from tests.support.tls_chains import Issued, tlsa

ROOT = Issued.root("root")
MIDDLE = ROOT.authority("middle")
OTHER = Issued.root("other")
LEAF = MIDDLE.issue("mx.a.test")
WILD = MIDDLE.issue("*.a.test")
NAMELESS = MIDDLE.issue()
EXPIRED = MIDDLE.issue("mx.a.test", expired=True)
EARLY = MIDDLE.issue("mx.a.test", early=True)
NAMES = ("mx.a.test", "a.test")


def record(text: str) -> TlsaRecord:
    usage, selector, matching, association = text.split()
    return TlsaRecord(int(usage), int(selector), int(matching), bytes.fromhex(association))


def verdict(chain: list[Issued], *records: str, names: tuple[str, ...] = NAMES) -> TlsResult | None:
    found = judge(
        [each.der for each in chain],
        usable([record(text) for text in records]),
        names=names,
        now=datetime.now(UTC),
    )
    return found.result if found else None


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize(
    ("usage", "named"), [(3, LEAF), (2, MIDDLE), (2, ROOT)], ids=["ee", "ta", "root"]
)
def test_every_kind_of_association(usage: int, named: Issued, selector: int, matching: int) -> None:
    chain = [LEAF, MIDDLE, ROOT]
    assert verdict(chain, tlsa(usage, selector, matching, named)) is None
    wrong = {LEAF: WILD, MIDDLE: OTHER, ROOT: OTHER}[named]
    assert verdict(chain, tlsa(usage, selector, matching, wrong)) is not None


@pytest.mark.parametrize(
    ("chain", "records", "expected"),
    [
        # DANE-EE: the key is all that counts.
        ([EXPIRED], [tlsa(3, 1, 1, EXPIRED)], None),
        ([EARLY], [tlsa(3, 1, 1, EARLY)], None),
        ([NAMELESS], [tlsa(3, 0, 1, NAMELESS)], None),
        ([LEAF], [tlsa(3, 1, 1, WILD), tlsa(3, 1, 1, LEAF)], None),
        ([LEAF], [tlsa(3, 1, 1, WILD)], TlsResult.CERTIFICATE_NOT_TRUSTED),
        ([LEAF, WILD], [tlsa(3, 1, 1, WILD)], TlsResult.CERTIFICATE_NOT_TRUSTED),
        # DANE-TA: a valid chain, a valid day, a reference name.
        ([LEAF, MIDDLE], [tlsa(2, 0, 1, MIDDLE)], None),
        ([WILD, MIDDLE], [tlsa(2, 1, 1, MIDDLE)], None),
        ([LEAF, MIDDLE, OTHER], [tlsa(2, 1, 1, MIDDLE)], None),
        ([LEAF, MIDDLE], [tlsa(2, 1, 1, OTHER), tlsa(2, 1, 1, MIDDLE)], None),
        ([LEAF, MIDDLE], [tlsa(2, 1, 1, OTHER), tlsa(3, 1, 1, LEAF)], None),
        # The whole certificate in the DNS need not be shown.
        ([LEAF, MIDDLE], [tlsa(2, 0, 0, ROOT)], None),
        ([LEAF], [tlsa(2, 0, 0, MIDDLE)], None),
        ([LEAF, MIDDLE], [tlsa(2, 0, 1, ROOT)], TlsResult.CERTIFICATE_NOT_TRUSTED),
        ([EXPIRED, MIDDLE], [tlsa(2, 0, 1, MIDDLE)], TlsResult.CERTIFICATE_EXPIRED),
        ([EARLY, MIDDLE], [tlsa(2, 0, 1, MIDDLE)], TlsResult.CERTIFICATE_EXPIRED),
        ([NAMELESS, MIDDLE], [tlsa(2, 0, 1, MIDDLE)], TlsResult.CERTIFICATE_HOST_MISMATCH),
        # Shown beside it, without a signature by it.
        ([LEAF, OTHER], [tlsa(2, 0, 1, OTHER)], TlsResult.CERTIFICATE_NOT_TRUSTED),
        ([], [tlsa(3, 1, 1, LEAF)], TlsResult.CERTIFICATE_NOT_TRUSTED),
    ],
)
def test_chains(chain: list[Issued], records: list[str], expected: TlsResult | None) -> None:
    assert verdict(chain, *records) == expected


def test_only_authorities_certify() -> None:
    host = MIDDLE.issue("evil.test")
    forged = host.issue("mx.a.test")
    found = verdict([forged, host, MIDDLE], tlsa(2, 0, 1, MIDDLE))
    assert found is TlsResult.CERTIFICATE_NOT_TRUSTED


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("mx.a.test",), None),
        (("other.test", "mx.a.test"), None),
        (("other.test",), TlsResult.CERTIFICATE_HOST_MISMATCH),
        (("x.mx.a.test",), TlsResult.CERTIFICATE_HOST_MISMATCH),
    ],
)
def test_reference_names(names: tuple[str, ...], expected: TlsResult | None) -> None:
    assert verdict([LEAF, MIDDLE], tlsa(2, 0, 1, MIDDLE), names=names) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0 0 1 " + "00" * 32, "1 1 1 " + "00" * 32], []),  # PKIX-TA and PKIX-EE
        (["4 1 1 " + "00" * 32, "255 1 1 " + "00" * 32], []),
        (["3 2 1 " + "00" * 32, "3 1 3 " + "00" * 32], []),
        (["3 1 1 " + "00" * 31, "3 1 2 " + "00" * 32], []),
        (["3 1 1 " + "00" * 32] * 2, ["3 1 1 " + "00" * 32]),
        # With a strong digest, the weak ones of its kind do not count.
        (
            ["3 1 1 " + "00" * 32, "3 1 2 " + "00" * 64, "2 1 1 " + "00" * 32, "3 1 0 30"],
            ["3 1 2 " + "00" * 64, "2 1 1 " + "00" * 32, "3 1 0 30"],
        ),
    ],
)
def test_records_that_can_be_used(texts: list[str], expected: list[str]) -> None:
    assert usable([record(text) for text in texts]) == tuple(map(record, expected))


def test_an_empty_association_names_nothing() -> None:
    assert usable([TlsaRecord(3, 0, 0, b"")]) == ()


@pytest.mark.parametrize(
    "shown",
    [b"", b"0", b"junk", LEAF.der[:-1], LEAF.der[:40], b"\x30\x84" + b"\xff" * 200],
    ids=["nothing", "an octet", "junk", "cut", "cut early", "endless"],
)
def test_what_is_no_certificate_matches_nothing(shown: bytes) -> None:
    records = usable([record(tlsa(3, 1, 1, LEAF)), record(tlsa(2, 0, 0, MIDDLE))])
    found = judge([shown, MIDDLE.der], records, names=NAMES, now=datetime.now(UTC))
    assert found is not None
    assert found.result is TlsResult.CERTIFICATE_NOT_TRUSTED


@given(st.binary(max_size=100), st.integers(0, 400), st.binary(max_size=8))
def test_reading_a_key_ends_in_octets_or_a_value_error(junk: bytes, at: int, octets: bytes) -> None:
    for data in (junk, LEAF.der[:at] + octets + LEAF.der[at + len(octets) :]):
        with contextlib.suppress(ValueError):
            assert public_key_info(data) in data
