"""One domain at a keys service, with the DNS servers that its records are published on.

A test has a domain of its own, so that many can share one running service.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import dkim
import grpc
import pytest

from gatepost.keys.v1 import keys_pb2 as pb
from services.common.mail.body_hash import BodyHash
from services.common.mail.message import split_message
from services.common.rpc import status
from services.common.rpc.auth import Role
from tests.support.dns_server import DnsServer
from tests.support.keys_process import KeysProcess

_numbers = itertools.count(1)


class KeysDomain:
    """What an operator, and delivery, do for one domain."""

    def __init__(self, process: KeysProcess, dns_servers: Sequence[DnsServer] = ()) -> None:
        self.name = f"d{next(_numbers)}.test"
        self.process = process
        self.dns_servers = tuple(dns_servers)
        self.message = (
            f"From: You <you@{self.name}>\r\nTo: a@b.test\r\nSubject: hello\r\n"
            "Date: Mon, 23 Nov 2026 03:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n"
            "\r\nHello,\r\nworld\r\n"
        ).encode()

    def at(self, process: KeysProcess) -> KeysDomain:
        """The same domain, asked about at another process."""
        other = KeysDomain(process, self.dns_servers)
        other.name, other.message = self.name, self.message
        return other

    def call(self, method: str, request: Any = None, /, **fields: Any) -> Any:
        """An operator's call; `fields` go into a request beside the domain."""
        if request is None:
            request = getattr(pb, f"{method}Request")(**{"domain": self.name, **fields})
        with self.process.calling(Role.OPERATOR) as client:
            return getattr(client, method)(request)

    def create(self, **fields: Any) -> pb.Key:
        """A new key."""
        key: pb.Key = self.call("CreateKey", **fields).key
        return key

    def key(self, selector: str) -> pb.Key:
        """The key as it is now."""
        key: pb.Key = self.call("GetKey", selector=selector).key
        return key

    def all_keys(self) -> list[pb.Key]:
        """All keys of the domain."""
        return list(self.call("ListKeys").keys)

    def publish(self, key: pb.Key, *servers: DnsServer) -> None:
        """Put the key's record on these servers, or on all."""
        for server in servers or self.dns_servers:
            server.records[key.dns_record.name, "TXT"] = [key.dns_record.value]

    def withdraw(self, key: pb.Key) -> None:
        """Take the record away everywhere."""
        for server in self.dns_servers:
            server.records.pop((key.dns_record.name, "TXT"), None)

    def activate(self, key: pb.Key, *, override: bool = False) -> pb.Key:
        """Let the key sign."""
        answer = self.call("ActivateKey", selector=key.selector, override_publication=override)
        activated: pb.Key = answer.key
        return activated

    def active(self, **fields: Any) -> pb.Key:
        """A new key, published and active."""
        key = self.create(**fields)
        self.publish(key)
        return self.activate(key, override=not self.dns_servers)

    def sign(self) -> pb.SignMessageResponse:
        """Have the message signed, as delivery does."""
        header, body = split_message(self.message)
        body_hash = BodyHash("relaxed")
        body_hash.update(body)
        with self.process.calling(Role.SERVICE) as service:
            answer: pb.SignMessageResponse = service.SignMessage(
                pb.SignMessageRequest(
                    domain=self.name, header_block=header, body_hash=body_hash.digest()
                )
            )
        return answer

    @property
    def signers(self) -> list[str]:
        """The selectors that sign now."""
        return [signature.selector for signature in self.sign().signatures]

    def verifies(self, answer: pb.SignMessageResponse) -> bool:
        """Whether dkimpy finds the keys in the DNS and all signatures good."""
        fields = b"".join(signature.header_field for signature in answer.signatures)
        verifier = dkim.DKIM(fields + self.message)
        return bool(answer.signatures) and all(
            verifier.verify(idx=index, dnsfunc=self._look_up)
            for index in range(len(answer.signatures))
        )

    def _look_up(self, name: bytes, timeout: int = 5) -> bytes | None:
        values = self.dns_servers[0].records.get((name.decode().rstrip("."), "TXT"))
        return values[0].encode() if values else None


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and text of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    details = dict(error.trailing_metadata()).get(status.DETAILS_FIELD, b"")
    return error.code(), status.decode_reason(details), error.details()
