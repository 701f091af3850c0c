"""Accounts and aliases from a file: the directory follows it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from gatepost.policy.v1 import directory_pb2 as pb
from services.common.rpc.auth import Role
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess

DECLARED = pb.ACCOUNT_ORIGIN_DECLARED


def write(path: Path, content: dict[str, Any] | str) -> None:
    """As a Secret changes: at once."""
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "accounts.yaml"
    write(path, {"accounts": [{"address": "first@example.test", "password": "first password"}]})
    return path


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, file: Path
) -> Iterator[PolicyProcess]:
    with (
        DnsServer() as dns,
        PolicyProcess(
            tmp_path_factory.mktemp("policy"),
            nats_url=nats_server.url,
            dns=dns.address,
            config={"recipients": {"accounts_file": str(file)}},
        ) as process,
    ):
        yield process


def accounts(policy: PolicyProcess) -> dict[str, int]:
    request = pb.ListAccountsRequest()
    answer = policy.call(policy.directory.ListAccounts, request, role=Role.VIEWER)
    return {account.address: account.origin for account in answer.accounts}


def logs_in(policy: PolicyProcess, address: str, password: str) -> bool:
    request = pb.AuthenticateRequest(username=address, password=password)
    answer = policy.call(policy.directory.Authenticate, request, role=Role.SERVICE)
    return bool(answer.authenticated)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_directory_follows_the_file(policy: PolicyProcess, file: Path) -> None:
    eventually(lambda: accounts(policy) == {"first@example.test": DECLARED})
    assert logs_in(policy, "first@example.test", "first password")

    by_hand = pb.CreateAccountRequest(address="by-hand@example.test", password="made by hand")
    policy.call(policy.directory.CreateAccount, by_hand, role=Role.OPERATOR)
    content = {
        "accounts": [
            {"address": "first@example.test", "password": "another password"},
            {"address": "second@example.test"},
            {"address": "elsewhere@not-local.test", "password": "submission only"},
        ],
        "aliases": {"sales@example.test": "second@example.test"},
    }
    write(file, content)
    eventually(lambda: logs_in(policy, "first@example.test", "another password"))
    assert not logs_in(policy, "first@example.test", "first password")
    eventually(lambda: "second@example.test" in accounts(policy))
    eventually(lambda: logs_in(policy, "elsewhere@not-local.test", "submission only"))
    [answer] = policy.check_envelope(recipients=("sales@example.test",)).recipients
    assert list(answer.deliver_to) == ["second@example.test"]

    write(file, {"accounts": [{"address": "second@example.test"}]})
    eventually(lambda: not {"first@example.test", "elsewhere@not-local.test"} & {*accounts(policy)})
    assert accounts(policy) == {
        "by-hand@example.test": pb.ACCOUNT_ORIGIN_CREATED,
        "second@example.test": DECLARED,
    }
    [answer] = policy.check_envelope(recipients=("sales@example.test",)).recipients
    assert not answer.deliver_to


@pytest.mark.parametrize("content", ["", "accounts: [{address: nobody}]", "accounts: ["])
def test_a_file_that_is_wrong_changes_nothing(
    policy: PolicyProcess, file: Path, content: str
) -> None:
    write(file, {"accounts": [{"address": "kept@example.test"}]})
    eventually(lambda: accounts(policy).get("kept@example.test") == DECLARED)
    write(file, content)
    eventually(lambda: policy.metric("gatepost_policy_accounts_file_valid") == 0)
    assert "accounts file rejected" in policy.log()
    assert "kept@example.test" in accounts(policy)


def test_what_is_declared_is_changed_in_the_file(policy: PolicyProcess, file: Path) -> None:
    write(file, {"accounts": [{"address": "fixed@example.test"}]})
    eventually(lambda: accounts(policy).get("fixed@example.test") == DECLARED)
    directory = policy.directory
    for method, request in (
        (directory.DeleteAccount, pb.DeleteAccountRequest(address="fixed@example.test")),
        (
            directory.SetPassword,
            pb.SetPasswordRequest(address="fixed@example.test", password="new password"),
        ),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            policy.call(method, request, role=Role.OPERATOR)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
