"""The examples of docs/policy.md, sent with grpcurl as they stand there."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatepost.policy.v1 import directory_pb2, policy_pb2
from services.common.rpc.auth import Role
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_cases import ZONE, check_message
from tests.support.policy_process import PolicyProcess
from tests.support.programs import program

DOCUMENT = Path(__file__).parents[2] / "docs/policy.md"
EXAMPLE = re.compile(
    r"^```json (?P<method>\w+)(?: (?P<role>\w+))?\n(?P<request>.*?)^```$", re.MULTILINE | re.DOTALL
)
# A command line that is typed as it stands, up to the line that does not end in a backslash.
COMMAND = re.compile(r"^    (grpcurl (?:.*\\\n)*.*)$", re.MULTILINE)
SERVICES = {
    method.name: service.full_name
    for service in (
        policy_pb2.DESCRIPTOR.services_by_name["PolicyService"],
        directory_pb2.DESCRIPTOR.services_by_name["DirectoryService"],
    )
    for method in service.methods
}
# What the answer to each example holds, as JSON text.
HOLDS = {
    "CheckEnvelope": ('"action": "ACTION_ACCEPT"', '"check": "spf_mismatch", "result": "pass"'),
    "CheckMessage": ('"check": "dkim_missing"', '"name": "Authentication-Results"'),
    "Judge": ('"number": "1"', '"action": "ACTION_ACCEPT"'),
    "ExplainMessage": ('"sender": "ann@example.org"', '"check": "helo_mismatch"'),
    "ReplayVerdicts": ('"replayed": ',),
    "GetStatus": ("{ }",),
    "CreateAccount": ('"address": "new@example.test"', '"has_password": true'),
    "GetAccount": ('"origin": "ACCOUNT_ORIGIN_CREATED"', '"receives_mail": true'),
    "ListAccounts": ('"address": "new@example.test"',),
    "SetPassword": ('"has_password": true',),
    "Authenticate": ('"authenticated": true',),
    "DeleteAccount": ("{ }",),
}
EXAMPLES = [match.groupdict() for match in EXAMPLE.finditer(DOCUMENT.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer
) -> Iterator[PolicyProcess]:
    folder = tmp_path_factory.mktemp("policy")
    with (
        DnsServer(ZONE) as dns,
        PolicyProcess(folder, nats_url=nats_server.url, dns=dns.address) as process,
    ):
        explained = next(each for each in EXAMPLES if each["method"] == "ExplainMessage")
        check_message(process, message_id=json.loads(explained["request"])["messageId"])
        yield process


def test_there_is_an_example_for_every_method() -> None:
    assert {each["method"] for each in EXAMPLES} == set(SERVICES)


def test_the_examples_work(policy: PolicyProcess) -> None:
    """In the order of the document: the account of one is used by the next."""
    for each in EXAMPLES:
        method = f"{SERVICES[each['method']]}/{each['method']}"
        role = Role(each["role"]) if each["role"] else None
        answer = policy.grpcurl(method, each["request"], role=role)
        assert answer.returncode == 0, f"{method}: {answer.stderr}"
        one_line = " ".join(answer.stdout.split())
        for text in HOLDS[each["method"]]:
            assert text in one_line, f"{method}: {answer.stdout}"


def test_the_command_lines_work(policy: PolicyProcess) -> None:
    lines = COMMAND.findall(DOCUMENT.read_text(encoding="utf-8"))
    for name in ("PolicyService", "DirectoryService"):
        assert f"grpcurl -plaintext localhost:7100 describe gatepost.policy.v1.{name}" in lines
    assert [line for line in lines if "gatepost.policy.v1.DirectoryService/" in line]
    for line in lines:
        here = line.replace("localhost:7100", policy.target).replace(
            "data/tokens", str(policy.tokens)
        )
        typed = here.replace("grpcurl", program("grpcurl"), 1)
        done = subprocess.run(
            ["sh", "-c", typed], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_roles_are_needed(policy: PolicyProcess) -> None:
    for each in EXAMPLES:
        if each["role"]:
            answer = policy.grpcurl(f"{SERVICES[each['method']]}/{each['method']}", each["request"])
            assert "Unauthenticated" in answer.stderr
