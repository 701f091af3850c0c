"""What a request may say: everything that can be judged is judged, the rest is told by field."""

from typing import Any

import grpc
import pytest

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from services.common.rpc.errors import RpcFailure
from services.policy.checks.check import Standing
from services.policy.policy_service import _CHECKS
from services.policy.requests import (
    check_message_id,
    check_recipients,
    read_envelope,
    read_mail,
    read_results,
)
from tests.support.subjects import envelope


def request(**fields: Any) -> pb.CheckEnvelopeRequest:
    fields.setdefault("session", pb.Session(client_address="192.0.2.1"))
    return pb.CheckEnvelopeRequest(**fields)


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.1",
        "0.0.0.0",
        "255.255.255.255",
        "127.0.0.1",
        "::",
        "::1",
        "fe80::1%eth0",
        "2001:DB8::1",
    ],
)
def test_any_client_address_can_be_asked_about(address: str) -> None:
    read_envelope(request(session=pb.Session(client_address=address)))


@pytest.mark.parametrize("text", ["", "\x00", "a b", "\r\n", "[", "@", "ÿ" * 1000, "<>", "a@b@c"])
def test_any_helo_name_and_sender_can_be_judged(text: str) -> None:
    session = pb.Session(client_address="192.0.2.1", helo=text)
    read_envelope(request(session=session, sender=text))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"session": None}, "session"),
        ({"session": pb.Session()}, "session.client_address"),
        ({"session": pb.Session(client_address="mx.example.org")}, "session.client_address"),
        ({"session": pb.Session(client_address="192.0.2.1/24")}, "session.client_address"),
        ({"session": pb.Session(client_address="192.0.2.01")}, "session.client_address"),
        (
            {"session": pb.Session(client_address="192.0.2.1", helo="x" * 5000)},
            "session.helo",
        ),
        ({"sender": "x" * 5000}, "sender"),
    ],
)
def test_what_cannot_be_judged_is_told_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RpcFailure) as failure:
        read_envelope(request(**fields))
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.value.text.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("recipients", "field"),
    [([], "recipients"), (["x@y"] * 1001, "recipients"), (["a", "x" * 5000], "recipients[1]")],
)
def test_recipients(recipients: list[str], field: str) -> None:
    with pytest.raises(RpcFailure, match=rf"^{field.replace('[', chr(92) + '[')}: "):
        check_recipients(recipients, count=len(recipients))
    check_recipients(["garbage", ""], count=2)


@pytest.mark.parametrize("message_id", ["", "A", "a.b", "a*", "x" * 65, "-a"])
def test_message_ids(message_id: str) -> None:
    with pytest.raises(RpcFailure, match=r"^message_id: "):
        check_message_id(message_id, dry_run=False)
    check_message_id("", dry_run=True)
    check_message_id("0abc-1", dry_run=False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "mail"),
        ({"content": b"x" * (3 * 2**20 + 1)}, "content"),
        ({"content": b"a: b\r\n" * 3000 + b"\r\n"}, "content"),
        ({"header": pb.HeaderAndDigests(header_block=b"a: b\r\n" * 3000)}, "header.header_block"),
        (
            {"header": pb.HeaderAndDigests(body_digests=[pb.BodyDigest()] * 101)},
            "header.body_digests",
        ),
        (
            {"header": pb.HeaderAndDigests(body_digests=[pb.BodyDigest()])},
            "header.body_digests[0].canonicalization",
        ),
        (
            {
                "header": pb.HeaderAndDigests(
                    body_digests=[pb.BodyDigest(canonicalization="simple")]
                )
            },
            "header.body_digests[0].hash_algorithm",
        ),
        (
            {
                "header": pb.HeaderAndDigests(
                    body_digests=[
                        pb.BodyDigest(
                            canonicalization="simple", hash_algorithm="sha256", digest=b"x"
                        )
                    ]
                )
            },
            "header.body_digests[0].digest",
        ),
    ],
)
def test_mails(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RpcFailure) as failure:
        read_mail(pb.CheckMessageRequest(**fields), envelope())
    assert failure.value.text.startswith(f"{field}: ")


async def test_a_content_may_have_the_line_ends_of_a_file() -> None:
    sent = b"A: 1\r\n\r\none\r\ntwo\r\n"
    digests = []
    # The last is a file of neither kind, and is judged as it is.
    for content in (sent, sent.replace(b"\r\n", b"\n"), sent.replace(b"one\r", b"one")):
        judged = read_mail(pb.CheckMessageRequest(content=content), envelope())
        assert judged.header.fields[0].raw == b"A: 1\r\n"
        await judged.hash_body([("simple", None)])
        digest = judged.body_digest("simple", None)
        assert digest is not None
        digests.append(digest.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_content_without_an_empty_line_is_all_header() -> None:
    read_mail(pb.CheckMessageRequest(content=b"garbage"), envelope())


def test_earlier_results_are_taken_over() -> None:
    given = [
        verdict_pb2.CheckResult(check="helo_mismatch", result="fail", objects=True),
        verdict_pb2.CheckResult(check="spf_mismatch", result="temperror", objects=True),
        verdict_pb2.CheckResult(check="recipient", result="local"),
    ]
    found = read_results(given, _CHECKS, count=len(given), strict=True)
    assert {check: finding.standing for check, finding in found.items()} == {
        "helo_mismatch": Standing.OBJECTS,
        "spf_mismatch": Standing.UNKNOWN,
    }


def test_results_of_unknown_checks_are_told() -> None:
    given = [verdict_pb2.CheckResult(check="palm_reading")]
    with pytest.raises(
        RpcFailure, match=r"^envelope_results\[0\].check: 'palm_reading' is none of"
    ):
        read_results(given, _CHECKS, count=1, strict=True)
    assert read_results(given, _CHECKS, count=1, strict=False) == {}
