"""The keys service as its callers see it: a real process, real gRPC, real DNS servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gatepost.keys.v1 import keys_pb2 as pb
from services.common.rpc.auth import Role
from services.keys.key import KeyType
from services.keys.private_key import generate
from tests.support import opendkim
from tests.support.dns_server import DnsServer
from tests.support.keys_domain import KeysDomain, refusal
from tests.support.keys_process import KeysProcess

_FAILED = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def dns_servers() -> Iterator[tuple[DnsServer, DnsServer]]:
    with DnsServer() as first, DnsServer() as second:
        yield first, second


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, dns_servers: tuple[DnsServer, DnsServer]
) -> Iterator[KeysProcess]:
    addresses = [server.address for server in dns_servers]
    config = {"keys": {"publication_servers": addresses}}
    process = KeysProcess(tmp_path_factory.mktemp("keys"), config)
    process.start()
    yield process
    process.close()


@pytest.fixture
def domain(process: KeysProcess, dns_servers: tuple[DnsServer, DnsServer]) -> KeysDomain:
    return KeysDomain(process, dns_servers)


@pytest.mark.parametrize("key_type", KeyType)
def test_made_published_activated_and_used(domain: KeysDomain, key_type: KeyType) -> None:
    key = domain.create(key_type=key_type)
    assert key.state == pb.KEY_STATE_PENDING
    assert domain.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    domain.publish(key)
    active = domain.activate(key)
    assert active.state == pb.KEY_STATE_ACTIVE
    assert active.HasField("publish_time")
    answer = domain.sign()
    assert answer.outcome == pb.SIGNING_OUTCOME_SIGNED
    [signature] = answer.signatures
    assert (signature.selector, signature.algorithm) == (key.selector, f"{key_type}-sha256")
    assert domain.verifies(answer)


def test_a_key_of_each_kind_signs_side_by_side(domain: KeysDomain) -> None:
    keys = [domain.active(key_type=key_type) for key_type in KeyType]
    answer = domain.sign()
    assert [s.selector for s in answer.signatures] == [key.selector for key in keys]
    assert domain.verifies(answer)


def test_opendkim_agrees(domain: KeysDomain, tmp_path: Path) -> None:
    keys = [domain.active(key_type=key_type, bits=bits) for key_type, bits in _KINDS]
    records = {key.dns_record.name: key.dns_record.value for key in keys}
    fields = [signature.header_field for signature in domain.sign().signatures]
    message = b"".join(fields) + domain.message
    named = [f"{key.key_type}-sha256 {key.selector}" for key in keys]
    assert opendkim.verified(message, records, tmp_path) == [f"pass {name}" for name in named]
    changed = message.replace(b"Subject: hello", b"Subject: hallo")
    assert opendkim.verified(changed, records, tmp_path) == [f"fail {name}" for name in named]


# RSA before Ed25519, as the service orders them.
_KINDS = (("rsa", 1024), ("rsa", 4096), ("ed25519", 0))

_RIGHT = "{right}"


@pytest.mark.parametrize(
    ("at_first", "at_second", "why"),
    [
        ([], [], "no such name"),
        ([_RIGHT], [], "no such name"),
        ([_RIGHT], ["{other}"], "another key"),
        ([_RIGHT], [_RIGHT, "{other}"], "2 TXT records"),
        ([_RIGHT], ["{half}"], "cut off"),
        ([_RIGHT], ["{quoted}"], "damaged"),
        ([_RIGHT], ["v=spf1 -all"], "v= is not DKIM1"),
    ],
    ids=["nowhere", "at one of two", "another key", "two", "cut off", "broken", "no key"],
)
def test_a_key_does_not_sign_before_every_server_shows_its_record(
    domain: KeysDomain, at_first: list[str], at_second: list[str], why: str
) -> None:
    key = domain.create()
    right = key.dns_record.value
    forms = {
        "right": right,
        "other": domain.create().dns_record.value,
        "half": right[:200],
        "quoted": right[:100] + '"' + right[100:],
    }
    for server, values in zip(domain.dns_servers, (at_first, at_second), strict=True):
        if values:
            published = [value.format_map(forms) for value in values]
            server.records[key.dns_record.name, "TXT"] = published
    code, reason, text = refusal(lambda: domain.activate(key))
    assert (code, reason) == (_FAILED, "RECORD_NOT_VISIBLE")
    assert why in text
    assert domain.dns_servers[1].address in text
    assert domain.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    domain.publish(key)
    assert domain.activate(key).state == pb.KEY_STATE_ACTIVE


def test_a_server_that_is_silent_does_not_count_as_showing_it(domain: KeysDomain) -> None:
    key = domain.create()
    domain.publish(key)
    silent = domain.dns_servers[1]
    silent.timeout.add(key.dns_record.name)
    code, _, text = refusal(lambda: domain.activate(key))
    assert code is _FAILED
    assert f"{silent.address}: no valid answer" in text
    silent.timeout.discard(key.dns_record.name)
    assert domain.activate(key).state == pb.KEY_STATE_ACTIVE


def test_an_operator_may_know_better_and_the_log_says_so(domain: KeysDomain) -> None:
    key = domain.activate(domain.create(), override=True)
    assert key.state == pb.KEY_STATE_ACTIVE
    assert not key.HasField("publish_time")
    assert any("without its record being seen" in note for note in key.notes)
    lines = [json.loads(line) for line in domain.process.log.splitlines()]
    [warning] = [
        line for line in lines if line.get("domain") == domain.name and line["level"] == "warning"
    ]
    assert warning["msg"] == "key activated although its record is not visible everywhere"
    assert warning["selector"] == key.selector
    assert domain.signers == [key.selector]


def test_publication_is_told_server_by_server(domain: KeysDomain) -> None:
    first, second = domain.dns_servers
    key = domain.create()
    domain.publish(key, first)
    found = domain.call("CheckPublication", selector=key.selector)
    assert not found.published
    assert [(s.server, s.published) for s in found.servers] == [
        (first.address, True),
        (second.address, False),
    ]
    assert found.expected == key.dns_record
    domain.publish(key)
    assert domain.call("CheckPublication", selector=key.selector).published
    assert domain.key(key.selector).state == pb.KEY_STATE_PUBLISHED


def test_rotation(domain: KeysDomain) -> None:
    old = domain.active(key_type="ed25519")
    last = refusal(lambda: domain.call("RetireKey", selector=old.selector))
    assert last[:2] == (_FAILED, "LAST_ACTIVE_KEY")
    new = domain.active(key_type="ed25519")
    assert new.selector != old.selector
    retired = domain.call("RetireKey", selector=old.selector).key
    assert retired.state == pb.KEY_STATE_RETIRING
    assert domain.signers == [new.selector]
    # What was signed yesterday is verified tomorrow: the key stays, and signs never again.
    assert refusal(lambda: domain.call("DeleteKey", selector=old.selector))[1] == "WRONG_STATE"
    assert refusal(lambda: domain.activate(old))[1] == "WRONG_STATE"


def test_the_last_key_is_retired_on_demand_and_mail_goes_unsigned(domain: KeysDomain) -> None:
    key = domain.active()
    domain.call("RetireKey", selector=key.selector, leave_unsigned=True)
    assert domain.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    assert "mail is unsigned from now on" in domain.process.log


def test_a_deleted_key_is_gone_and_its_selector_is_not(domain: KeysDomain) -> None:
    domain.create(selector="s1")
    domain.call("DeleteKey", selector="s1")
    assert refusal(lambda: domain.key("s1"))[0] is grpc.StatusCode.NOT_FOUND
    assert domain.all_keys() == []
    used = refusal(lambda: domain.create(selector="S1"))
    assert used[:2] == (grpc.StatusCode.ALREADY_EXISTS, "SELECTOR_USED")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"domain": ""}, "INVALID_DOMAIN"),
        ({"domain": "a b"}, "INVALID_DOMAIN"),
        ({"domain": "../etc"}, "INVALID_DOMAIN"),
        ({"selector": "a_b"}, "INVALID_SELECTOR"),
        ({"selector": "../../x"}, "INVALID_SELECTOR"),
        ({"key_type": "dsa"}, "INVALID_KEY_TYPE"),
        ({"bits": 512}, "INVALID_BITS"),
        ({"bits": 8192}, "INVALID_BITS"),
        ({"expiry": {"seconds": -1}}, "INVALID_EXPIRY"),
        ({"expiry": {"seconds": 10**11}}, "INVALID_EXPIRY"),
        ({"request_id": "x" * 200}, "INVALID_REQUEST_ID"),
        ({"domain": ".".join(["d" * 60] * 4), "selector": "s"}, "NAME_TOO_LONG"),
    ],
)
def test_what_cannot_be_made(domain: KeysDomain, fields: dict[str, Any], reason: str) -> None:
    code, found, _ = refusal(lambda: domain.create(**fields))
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


@pytest.mark.parametrize(
    ("fields", "bits", "note"),
    [
        ({}, 2048, "publish the record"),
        ({"bits": 1024}, 1024, "weak"),
        ({"bits": 3072}, 3072, "slower"),
        ({"key_type": "ed25519"}, 256, "keep an RSA key"),
    ],
)
def test_sizes(domain: KeysDomain, fields: dict[str, Any], bits: int, note: str) -> None:
    key = domain.create(**fields)
    assert key.bits == bits
    assert note in key.notes[0]


def test_expiry_is_kept(domain: KeysDomain) -> None:
    key = domain.create(expiry={"seconds": 86400 * 90})
    assert key.expire_time.seconds - key.create_time.seconds == 86400 * 90
    assert not domain.create().HasField("expire_time")


def test_a_key_made_elsewhere_signs(domain: KeysDomain) -> None:
    private = generate(KeyType.RSA, bits=1024)
    pem = private.pem()
    key = domain.call("ImportKey", selector="old", private_key_pem=pem).key
    assert (key.bits, key.dns_record.value) == (1024, f"v=DKIM1; k=rsa; p={private.public}")
    domain.publish(key)
    domain.activate(key)
    assert domain.verifies(domain.sign())
    for selector, content, reason in [
        ("other", b"garbage", "INVALID_PRIVATE_KEY"),
        ("old", pem, "SELECTOR_USED"),
        ("", pem, "INVALID_SELECTOR"),
    ]:
        again = refusal(
            lambda s=selector, c=content: domain.call("ImportKey", selector=s, private_key_pem=c)  # type: ignore[misc]
        )
        assert again[1] == reason


def test_pages(process: KeysProcess) -> None:
    domains = [KeysDomain(process) for _ in range(3)]
    for domain in reversed(domains):
        for _ in range(2):
            domain.create(key_type="ed25519")
    found: list[str] = []
    request = pb.ListKeysRequest(page_size=2)
    while True:
        page = domains[0].call("ListKeys", request)
        assert len(page.keys) <= 2
        found += [key.domain for key in page.keys]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == sorted(found)
    assert all(found.count(domain.name) == 2 for domain in domains)
    assert len(found) == len(domains[0].call("ListKeys", pb.ListKeysRequest()).keys)
    active = pb.ListKeysRequest(domain=domains[0].name, state=pb.KEY_STATE_ACTIVE)
    assert len(domains[0].call("ListKeys", active).keys) == 0
    bad = pb.ListKeysRequest(page_token="%%%")
    assert refusal(lambda: domains[0].call("ListKeys", bad))[1] == "INVALID_PAGE_TOKEN"


_ROLES = {
    "CreateKey": "operator",
    "ImportKey": "operator",
    "GetKey": "viewer",
    "ListKeys": "viewer",
    "ActivateKey": "operator",
    "RetireKey": "operator",
    "DeleteKey": "operator",
    "CheckPublication": "viewer",
    "SignMessage": "service",
    "GetDnsRecords": "viewer",
}


def test_each_role_may_do_its_part_and_no_more(process: KeysProcess) -> None:
    holders = {"operator": {"operator"}, "viewer": {"viewer", "operator"}, "service": {"service"}}
    for role in Role:
        with process.calling(role) as client:
            for method, needed in _ROLES.items():
                code = grpc.StatusCode.OK
                try:
                    getattr(client, method)(getattr(pb, f"{method}Request")())
                except grpc.RpcError as error:
                    code = error.code()
                refused = code in (
                    grpc.StatusCode.UNAUTHENTICATED,
                    grpc.StatusCode.PERMISSION_DENIED,
                )
                assert refused is (role not in holders[needed]), (role, method, code)


def test_grpcurl(domain: KeysDomain) -> None:
    process = domain.process
    wish = {"domain": domain.name, "key_type": "ed25519"}
    key = json.loads(process.grpcurl("CreateKey", json.dumps(wish)).stdout)["key"]
    assert key["state"] == "KEY_STATE_PENDING"
    assert key["dns_record"]["value"].startswith("v=DKIM1; k=ed25519; p=")
    body = json.dumps({"domain": key["domain"], "selector": key["selector"]})
    refused = process.grpcurl("ActivateKey", body)
    assert "FailedPrecondition" in refused.stderr
    assert "RECORD_NOT_VISIBLE" in refused.stderr
    header = base64.b64encode(f"From: a@{domain.name}\r\n".encode()).decode()
    question = {"domain": domain.name, "header_block": header, "body_hash": "A" * 43 + "="}
    answer = process.grpcurl("SignMessage", json.dumps(question), role=Role.SERVICE)
    assert json.loads(answer.stdout) == {"outcome": "SIGNING_OUTCOME_NO_KEY"}


def test_records_to_publish_beside_what_is_there(tmp_path: Path) -> None:
    with DnsServer() as server:
        settings = {
            "smtp": {"hostname": "mail.example.test"},
            "domains": {"local": ["example.test"]},
            "dns": {"servers": [server.address]},
            "keys": {"publication_servers": [server.address]},
        }
        process = KeysProcess(tmp_path, settings)
        process.start()
        try:
            domain = KeysDomain(process, [server])
            domain.name = "example.test"
            key = domain.create()
            server.records["example.test", "MX"] = ["10 other.test"]
            records = {
                (each.record.name, each.record.type): each
                for each in domain.call("GetDnsRecords").records
            }
            mx = records["example.test", "MX"]
            assert (mx.record.value, list(mx.current_values), mx.satisfied) == (
                "10 mail.example.test",
                ["10 other.test"],
                False,
            )
            assert records[key.dns_record.name, "TXT"].record.value == key.dns_record.value
            assert len(records) == 6
            for each in records.values():
                server.records[each.record.name, each.record.type] = [each.record.value]
            again = domain.call("GetDnsRecords").records
            assert [each.record.name for each in again if not each.satisfied] == []
        finally:
            process.close()
