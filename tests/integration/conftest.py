"""What several modules begin with: the queue, empty, for those that deliver mail, and a policy
service with a domain for every check and action for those that judge it.

A module that wants another one defines fixtures of the same names.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator

import nats.errors
import pytest

from gatepost.policy.v1 import directory_pb2
from services.common.jetstream import JetStream
from services.common.rpc.auth import Role
from tests.support.delivery import connected_store
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_cases import ZONE, with_domains
from tests.support.policy_process import PolicyProcess


@pytest.fixture
async def store(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    """The streams of the module's nats-server, without a message."""
    opened = await connected_store(nats_server.url)
    yield opened
    # What a process of this test still sent must not arrive once the next has emptied the streams.
    with contextlib.suppress(nats.errors.Error):
        await opened.client.flush(timeout=2)
    await opened.close()


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    """The records that the cases are about, and two names that are never answered."""
    with DnsServer(ZONE, timeout={"slow.example", "slow.example.org"}) as server:
        yield server


@pytest.fixture(scope="module")
def running_policy(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, dns: DnsServer
) -> Iterator[PolicyProcess]:
    """The process, which has the account you@example.test."""
    folder = tmp_path_factory.mktemp("policy")
    with PolicyProcess(
        folder, nats_url=nats_server.url, dns=dns.address, config=with_domains()
    ) as process:
        request = directory_pb2.CreateAccountRequest(address="you@example.test")
        process.call(process.directory.CreateAccount, request, role=Role.OPERATOR)
        yield process


@pytest.fixture
def policy(running_policy: PolicyProcess) -> Iterator[PolicyProcess]:
    """The process with the configuration of `with_domains`, whatever a test made of it."""
    yield running_policy
    if running_policy.changed:
        running_policy.configure(with_domains(), is_start=True)
