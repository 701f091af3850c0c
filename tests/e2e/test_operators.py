"""What operators use: grpcurl, metrics, the command line."""

import json
import re
import smtplib
import subprocess
import time
from typing import Any

import pytest

from tests.chaos.garbage import publish_garbage
from tests.support.installation import SERVICES, Installation
from tests.support.programs import program


def grpcurl(
    installation: Installation, port: str, *arguments: str, token: str = ""
) -> subprocess.CompletedProcess[str]:
    header = ("-H", f"authorization: Bearer {token}") if token else ()
    address = f"127.0.0.1:{installation.ports[port]}"
    return subprocess.run(
        [
            program("grpcurl"),
            "-plaintext",
            *header,
            *_before(arguments),
            address,
            *_after(arguments),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _before(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return arguments[:2] if arguments[0] == "-d" else ()


def _after(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return arguments[2:] if arguments[0] == "-d" else arguments


def operator_token(installation: Installation) -> str:
    text = (installation.data / "tokens" / "operator.token").read_text()
    return next(line for line in text.split("\n") if line and not line.startswith("#"))


@pytest.mark.parametrize(
    ("port", "service"),
    [
        ("policy", "gatepost.policy.v1.PolicyService"),
        ("policy", "gatepost.policy.v1.DirectoryService"),
        ("keys", "gatepost.keys.v1.KeyService"),
        ("queue", "gatepost.queue.v1.QueueService"),
        ("queue", "grpc.health.v1.Health"),
    ],
    ids=str,
)
def test_services_can_be_listed(installation: Installation, port: str, service: str) -> None:
    assert service in grpcurl(installation, port, "list").stdout.split()


def test_an_envelope_can_be_checked_with_evidence(installation: Installation) -> None:
    question: dict[str, Any] = {
        "session": {"client_address": "192.0.2.7", "helo": "mail.example.org"},
        "sender": "alice@example.org",
        "recipients": ["you@example.test"],
        "dry_run": True,
    }
    method = "gatepost.policy.v1.PolicyService/CheckEnvelope"
    asked = grpcurl(installation, "policy", "-d", json.dumps(question), method)
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert answer["recipients"][0]["deliver_to"] == ["you@example.test"]
    verdict = answer["recipients"][0]["verdict"]
    assert verdict["action"] == "ACTION_SPAM"
    results = {result["check"]: result for result in verdict["check_results"]}
    assert results["spf_mismatch"]["result"] == "fail"
    facts = json.dumps(results["spf_mismatch"]["evidence"])
    assert "v=spf1 ip4:127.0.0.1 -all" in facts
    assert "127.0.0.1" in json.dumps(results["helo_mismatch"]["evidence"])


def test_without_a_token_only_dry_runs_are_answered(installation: Installation) -> None:
    method = "gatepost.policy.v1.DirectoryService/ListAccounts"
    refused = grpcurl(installation, "policy", "-d", "{}", method)
    assert refused.returncode != 0
    assert "Unauthenticated" in refused.stderr
    token = operator_token(installation)
    listed = grpcurl(installation, "policy", "-d", "{}", method, token=token)
    assert "you@example.test" in listed.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_metrics_are_well_formed(installation: Installation, service: str) -> None:
    text = installation.metrics(service)
    assert f"gatepost_{service}_" in text
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (checked.stdout + checked.stderr).strip() == ""


def test_check_explains_a_verdict_and_ends_with_its_code(installation: Installation) -> None:
    asked = installation.gatepost(
        "check",
        *("--ip", "192.0.2.7", "--helo", "mail.example.org"),
        *("--from", "alice@example.org", "--to", "you@example.test"),
    )
    assert asked.returncode == 10, asked.stderr
    assert "spf_mismatch" in asked.stdout
    assert "v=spf1 ip4:127.0.0.1 -all" in asked.stdout
    refused = installation.gatepost("check", "--to", "someone@example.net", "--json")
    assert refused.returncode == 12
    assert json.loads(refused.stdout)["recipients"][0]["verdict"]["reply"]["code"] == 550


def test_check_takes_a_file(installation: Installation, folder) -> None:
    path = folder / "mail.eml"
    path.write_text("From: alice@example.org\nSubject: hello\n\nHi.\n")
    asked = installation.gatepost(
        "check",
        str(path),
        *("--ip", "127.0.0.1", "--helo", "mail.example.org"),
        *("--from", "alice@example.org", "--to", "you@example.test", "--json"),
    )
    answer = json.loads(asked.stdout)
    assert asked.returncode == 0, asked.stderr
    assert answer["verdict"]["action"] == "ACTION_ACCEPT"
    assert "Authentication-Results" in [field["name"] for field in answer["header_fields"]]


def test_a_candidate_policy_is_tried_on_what_was_decided(
    installation: Installation, folder
) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["mx"], "wrong.example.org") as client:
        client.sendmail("alice@example.org", ["you@example.test"], "Subject: x\r\n\r\nHi.\r\n")
    candidate = folder / "candidate.yaml"
    candidate.write_text("policy: {actions: {helo_mismatch: refuse}}\n")
    replay = ("policy", "replay", "--since", "24h", "--candidate", str(candidate))
    # The verdict is recorded a moment after the reply.
    deadline = time.monotonic() + 30
    told = None
    while told is None and time.monotonic() < deadline:
        shown = installation.gatepost(*replay)
        assert shown.returncode == 0, shown.stderr
        told = re.search(r"alice@example\.org +\w+ +refuse +helo_mismatch", shown.stdout)
    assert told, shown.stdout
    asked = installation.gatepost(*replay, "--json")
    answer = json.loads(asked.stdout)
    assert int(answer["changed"]) >= 1
    example = answer["examples"][-1]
    assert example["candidate_action"] == "ACTION_REFUSE"
    assert example["decisive_check"] == "helo_mismatch"
    candidate.write_text("policy: {actions: {helo_mismatch: shout}}\n")
    wrong = installation.gatepost("policy", "replay", "--candidate", str(candidate))
    assert wrong.returncode == 2
    assert "helo_mismatch" in wrong.stderr


def test_accounts_are_made_listed_and_removed(installation: Installation) -> None:
    made = installation.gatepost("accounts", "add", "new@example.test", "--generate", "--json")
    assert made.returncode == 0, made.stderr
    assert len(json.loads(made.stdout)["password"]) >= 16
    again = installation.gatepost("accounts", "add", "new@example.test", "--no-password")
    assert again.returncode == 1
    assert "new@example.test" in again.stderr
    listed = json.loads(installation.gatepost("accounts", "list", "--json").stdout)
    assert "new@example.test" in [account["address"] for account in listed]
    assert "hash" not in json.dumps(listed)
    gone = installation.gatepost("accounts", "delete", "new@example.test", "--yes", "--json")
    assert (gone.returncode, json.loads(gone.stdout)) == (0, {"address": "new@example.test"})
    assert "new@example.test" not in installation.gatepost("accounts", "list").stdout


def test_suppressions_are_made_listed_and_removed(installation: Installation) -> None:
    def suppressions(*arguments: str) -> subprocess.CompletedProcess[str]:
        return installation.gatepost("queue", "suppressions", *arguments)

    assert suppressions("add", "gone@example.net", "--reason", "asked us").returncode == 0
    listed = suppressions("list")
    assert "gone@example.net" in listed.stdout
    assert "asked us" in listed.stdout
    (entry,) = json.loads(suppressions("list", "GONE@example.net", "--json").stdout)
    assert entry["by_hand"] is True
    assert suppressions("remove", "gone@example.net").returncode == 0
    assert suppressions("remove", "gone@example.net").returncode != 0
    assert json.loads(suppressions("list", "--json").stdout) == []


def test_commands_fail_clearly(installation: Installation) -> None:
    missing = installation.gatepost("queue", "show", "0000000000000000-1")
    assert missing.returncode == 4, missing.stderr
    away = installation.gatepost("queue", "list", "--server", "127.0.0.1:1")
    assert away.returncode == 3
    assert away.stderr.count("\n") == 1
    denied = installation.gatepost("accounts", "list", "--token-file", "/dev/null")
    assert denied.returncode == 5
    wrong = installation.gatepost("queue", "list", "--state", "lost")
    assert wrong.returncode == 2


def test_the_topology_is_verified(installation: Installation) -> None:
    done = installation.gatepost("topology", "verify", "--config", str(installation.config_file))
    assert (done.returncode, done.stdout) == (0, "the topology is as it must be\n"), done.stderr


def test_records_that_were_set_aside_are_listed(installation: Installation) -> None:
    def dead(*arguments: str) -> subprocess.CompletedProcess[str]:
        return installation.gatepost("queue", "dead", *arguments)

    planted = publish_garbage(installation)
    deadline = time.monotonic() + 30
    while len(found := json.loads(dead("list", "--json").stdout)) < planted:
        assert time.monotonic() < deadline, found
    assert {entry["subject"] for entry in found} == {
        f"queue.ready.x~example.garbage-{number}" for number in range(planted)
    }
    assert "schema 99" in dead("list").stdout
    refused = dead("requeue", str(found[0]["sequence"]))
    assert refused.returncode != 0
    assert "still cannot be read" in refused.stderr
    assert dead("requeue", "999999").returncode != 0
    assert len(json.loads(dead("list", "--json").stdout)) == planted
