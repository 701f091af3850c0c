"""The largest request that each service reads: what its protos allow, and little above it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gatepost.keys.v1 import keys_pb2
from gatepost.policy.v1 import policy_pb2
from gatepost.queue.v1 import queue_pb2
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from services.common.jetstream import JetStream
from services.common.mail.message import MAX_HEADER_OCTETS
from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from services.keys.app import LIMITS as KEYS
from services.policy.app import LIMITS as POLICY
from services.policy.requests import MAX_CONTENT_OCTETS
from tests.support.delivery_process import DeliveryProcess
from tests.support.keys_process import KeysProcess
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess

_CALL_SECONDS = 15.0


def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeysProcess]:
    process = KeysProcess(tmp_path / "keys")
    process.start()
    yield process
    process.close()


@pytest.fixture
def delivery(
    tmp_path: Path, nats_server: NatsServer, store: JetStream
) -> Iterator[DeliveryProcess]:
    process = DeliveryProcess(tmp_path / "delivery", nats=[nats_server.url])
    process.start()
    yield process
    process.close()


def test_keys_reads_the_largest_header_and_not_much_more(keys: KeysProcess) -> None:
    def asked(octets: int) -> keys_pb2.SignMessageRequest:
        field = b"From: you@a.test\r\nX: "
        header = field + b"x" * (octets - len(field) - 2) + b"\r\n"
        return keys_pb2.SignMessageRequest(
            domain="a.test", header_block=header, body_hash=bytes(32)
        )

    with keys.calling(Role.SERVICE) as client:
        answer = client.SignMessage(asked(MAX_HEADER_OCTETS))
        assert answer.outcome == keys_pb2.SIGNING_OUTCOME_NO_KEY
        large = asked(KEYS.max_receive_size)
        assert code_of(lambda: client.SignMessage(large)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_policy_reads_the_largest_content_and_not_much_more(policy: PolicyProcess) -> None:
    def code(octets: int) -> grpc.StatusCode:
        request = policy_pb2.CheckMessageRequest(content=b"x" * octets)
        return code_of(lambda: policy.call(policy.checks.CheckMessage, request))

    # It was read, and lacks other fields.
    assert code(MAX_CONTENT_OCTETS) is grpc.StatusCode.INVALID_ARGUMENT
    assert code(POLICY.max_receive_size) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_queue_reads_no_large_request(delivery: DeliveryProcess) -> None:
    token = token_file(delivery.tokens, Role.OPERATOR).read_text().strip()
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(f"127.0.0.1:{delivery.rpc_port}") as channel:
        cancel = QueueServiceStub(channel).CancelMessage

        def code(octets: int) -> grpc.StatusCode:
            request = queue_pb2.CancelMessageRequest(message_id="x" * octets)
            return code_of(lambda: cancel(request, metadata=metadata, timeout=_CALL_SECONDS))

        assert code(200 * 1024) is grpc.StatusCode.INVALID_ARGUMENT
        assert code(256 * 1024) is grpc.StatusCode.RESOURCE_EXHAUSTED
