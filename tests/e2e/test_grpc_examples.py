"""Every method has an example in docs/grpc.md or docs/policy.md. Those of the first are sent with
grpcurl as they stand, in their order, and answered as a reader would expect."""

import asyncio
import base64
import json
import re
import smtplib
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatepost.keys.v1 import keys_pb2
from gatepost.policy.v1 import directory_pb2, policy_pb2
from gatepost.queue.v1 import queue_pb2
from services.common.jetstream import JetStream, NatsSettings, Outgoing
from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from services.delivery.dead import SUBJECT_HEADER
from services.keys.key import KeyType
from services.keys.private_key import generate
from tests.support.delivery import mail
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.ports import free_port
from tests.support.programs import program

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(
    r"^```json (?:(?P<service>\w+)/)?(?P<method>\w+)(?: (?P<role>\w+))?\n(?P<request>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SERVICES = {
    service.name: service
    for file in (keys_pb2, queue_pb2, policy_pb2, directory_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
PORTS = {"KeyService": "keys", "QueueService": "queue"}
DOCUMENTED_ID = "0a1b2c3d4e5f6-1"
# Methods that are about a mail that waits: while an attempt is under way, there is none.
WAITING = frozenset({"ListMessages", "HoldMessage", "RetryMessage", "CancelMessage"})
# What the answer to each example holds, as JSON text.
HOLDS: Mapping[str, tuple[str, ...]] = {
    "CreateKey": ('"state": "KEY_STATE_PENDING"', '"name": "rsa20260131._domainkey.example.org"'),
    "CheckPublication": ('"published": true', "v=DKIM1"),
    "ActivateKey": ('"state": "KEY_STATE_ACTIVE"',),
    "GetKey": ('"selector": "rsa20260131"', '"bits": 2048'),
    "ImportKey": ('"selector": "old2025"', '"state": "KEY_STATE_PENDING"'),
    "ListKeys": ('"selector": "rsa20260131"',),
    "ListDomains": ('"domain": "example.org"', '"domain": "example.test"'),
    "GetDnsRecords": ('"type": "TXT"', "v=spf1"),
    "SignMessage": ('"outcome": "SIGNING_OUTCOME_SIGNED"', '"selector": "rsa20260131"'),
    "RetireKey": ('"state": "KEY_STATE_RETIRING"',),
    "DeleteKey": ("{ }",),
    "ListMessages": ('"state": "QUEUE_STATE_DEFERRED"', DOCUMENTED_ID),
    "GetMessage": ('"destination": "example.net"', '"verdict"', DOCUMENTED_ID),
    "HoldMessage": ('"state": "QUEUE_STATE_HELD"', DOCUMENTED_ID),
    "ReleaseMessage": (DOCUMENTED_ID,),
    "SuspendDestination": ("{ }",),
    "ListSuspensions": ('"destination": "example.net"', '"until_time": "2099-12-31T00:00:00Z"'),
    "ResumeDestination": ("{ }",),
    "RetryMessage": (DOCUMENTED_ID,),
    "WatchEvents": ('"event"', DOCUMENTED_ID),
    "CancelMessage": (DOCUMENTED_ID,),
    "ListDeadRecords": ('"subject": "queue.ready.example~net.', '"sequence": "1"'),
    "RequeueDeadRecord": ("{ }",),
    "AddSuppression": ('"address": "gone@example.net"', "asked to be left alone"),
    "ListSuppressions": ('"address": "gone@example.net"',),
    "RemoveSuppression": ("{ }",),
}


@dataclass(frozen=True)
class Example:
    """One request of a document."""

    service: str
    method: str
    role: str
    request: str


def examples(name: str) -> list[Example]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [
        Example(found["service"] or "", found["method"], found["role"] or "", found["request"])
        for found in EXAMPLE.finditer(text)
    ]


def test_every_method_has_an_example() -> None:
    documented = {
        each.method for name in ("docs/grpc.md", "docs/policy.md") for each in examples(name)
    }
    methods = {method.name for service in SERVICES.values() for method in service.methods}
    assert documented == methods
    assert {each.method for each in examples("docs/grpc.md")} == set(HOLDS)


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer({("mx.example.org", "A"): ["127.0.0.1"]}) as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, dns: DnsServer) -> Iterator[Installation]:
    """Mail for example.net is passed on to a place where nobody listens."""
    config = {
        "dns": {"servers": [dns.address]},
        "domains": {"relay": {"example.net": f"smtp:127.0.0.1:{free_port()}"}},
        "keys": {"publication_servers": [dns.address]},
    }
    started = Installation(tmp_path_factory.mktemp("gatepost"), config)
    started.start()
    yield started
    started.close()


def test_the_examples_work(running: Installation, dns: DnsServer) -> None:
    message_id = send(running)
    dead = asyncio.run(set_aside(running))
    stand_ins = {
        DOCUMENTED_ID: message_id,
        "<base64 of the PEM file>": base64.b64encode(pem()).decode(),
        '"sequence": "1"': f'"sequence": "{dead}"',
    }
    for each in examples("docs/grpc.md"):
        wanted = [replaced(text, stand_ins) for text in HOLDS[each.method]]
        request = replaced(each.request, stand_ins)
        answer = ask(running, each, request)
        deadline = time.monotonic() + 120
        while each.method in WAITING and not holds(answer, wanted) and time.monotonic() < deadline:
            answer = ask(running, each, request)
        assert holds(answer, wanted), f"{each.method}: {answer}\n{running.log_tail('delivery')}"
        if each.method == "CreateKey":
            record = json.loads(answer)["key"]["dns_record"]
            dns.records[record["name"], "TXT"] = [record["value"]]


def holds(answer: str, texts: list[str]) -> bool:
    one_line = " ".join(answer.split())
    return all(text in one_line for text in texts)


def ask(running: Installation, example: Example, request: str) -> str:
    """The answer as grpcurl prints it; of a stream what comes within two seconds."""
    token = token_file(running.data / "tokens", Role(example.role)).read_text("ascii").strip()
    done = grpcurl(running, example, request, "-H", f"authorization: Bearer {token}")
    assert is_stream(example) or done.returncode == 0, f"{example.method}: {done.stderr}"
    return done.stdout


def grpcurl(
    running: Installation, example: Example, request: str, *options: str
) -> subprocess.CompletedProcess[str]:
    limit = ("-max-time", "2") if is_stream(example) else ()
    return subprocess.run(
        [
            *(program("grpcurl"), "-plaintext", *limit, *options, "-d", request),
            f"127.0.0.1:{running.ports[PORTS[example.service]]}",
            f"{SERVICES[example.service].full_name}/{example.method}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_stream(example: Example) -> bool:
    return bool(SERVICES[example.service].methods_by_name[example.method].server_streaming)


def replaced(text: str, stand_ins: Mapping[str, str]) -> str:
    for documented, real in stand_ins.items():
        text = text.replace(documented, real)
    return text


def send(running: Installation) -> str:
    """A mail for example.net, which waits; its id."""
    with smtplib.SMTP("127.0.0.1", running.ports["mx"], "mx.example.org", timeout=30) as client:
        client.ehlo()
        client.mail("ann@example.org")
        assert client.rcpt("bob@example.net")[0] == 250
        code, text = client.data(b"From: ann@example.org\r\n\r\nHello.\r\n")
        assert code == 250
    return text.decode().rpartition(" ")[2]


async def set_aside(running: Installation) -> int:
    """A record that another release has set aside and this one can read; its number."""
    store = JetStream(
        NatsSettings(
            urls=(f"nats://127.0.0.1:{running.ports['nats']}",),
            client_name="test",
            username="gatepost",
            password_file=running.data / "nats" / "password",
        )
    )
    await store.start(wait_s=30)
    try:
        record = mail("bob@example.net")
        headers = {SUBJECT_HEADER: f"queue.ready.example~net.{record.message_id}"}
        return await store.publish(Outgoing("dead.1", record.SerializeToString(), headers))
    finally:
        await store.close()


def pem() -> bytes:
    return generate(KeyType.ED25519, bits=256).pem()
