"""No private key is anywhere but in its store: not in logs, answers, metrics, or the process.

Everything that an operator can do is done, right and wrong, at the most talkative log level; then
whatever came out is searched for every form that a private key could take.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatepost.keys.v1 import keys_pb2 as pb
from services.keys.key import KeyType
from services.keys.private_key import generate
from tests.support.dns_server import DnsServer
from tests.support.keys_domain import KeysDomain
from tests.support.keys_process import KeysProcess
from tests.support.kubernetes_api import KubernetesApi

_PIECE = 24
"""So many characters of a key in a row are no chance."""

_WAIT_SECONDS = 60.0

pytestmark = pytest.mark.timeout(180)


def _forms(pem: bytes) -> set[str]:
    """What a private key looks like to somebody who leaks it, in pieces."""
    key = serialization.load_pem_private_key(pem, password=None)
    octets = [_der(key, form) for form in _formats(key)]
    octets.append(pem)  # in base64 once more it is the data of a Secret
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        secrets = (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        octets += [number.to_bytes((number.bit_length() + 7) // 8, "big") for number in secrets]
        texts = [str(number) for number in secrets]
        # The first third of an RSA key's DER is its public modulus.
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.PKCS1
        )
    else:
        texts, public = [], b""
        assert isinstance(key, Ed25519PrivateKey)
        octets.append(key.private_bytes_raw())
    for secret in octets:
        for start in range(3):  # base64 looks different at each offset
            texts.append(base64.b64encode(secret[start:]).decode())
        texts.append(secret.hex())
        texts.append(repr(secret)[2:-1])
    whole = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    known = {
        base64.b64encode(each[start:]).decode() for each in (public, whole) for start in range(3)
    }
    # A Secret's data is base64 of PEM, which is base64: the modulus is in that too.
    known |= {
        base64.b64encode(text[start:].encode()).decode() for text in known for start in range(3)
    }
    known |= {public.hex(), repr(public)[2:-1]}
    pieces = {
        text[at : at + _PIECE] for text in texts for at in range(0, len(text) - _PIECE, _PIECE // 3)
    }
    return {piece for piece in pieces if not any(piece in each for each in known)}


def _formats(key: object) -> list[serialization.PrivateFormat]:
    both = [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
    return both if isinstance(key, rsa.RSAPrivateKey) else both[:1]


def _der(key: Any, form: serialization.PrivateFormat) -> bytes:
    encoded: bytes = key.private_bytes(
        serialization.Encoding.DER, form, serialization.NoEncryption()
    )
    return encoded


def _found(forms: set[str], where: dict[str, str]) -> list[str]:
    return [name for name, text in where.items() if any(form in text for form in forms)]


def _exercise(domain: KeysDomain, damage: Callable[[str, str], None]) -> list[bytes]:
    """Do everything, right and wrong; the PEM blocks that were handed in."""
    handed_in = []
    for key_type in KeyType:
        key = domain.active(key_type=key_type, expiry={"seconds": 86400}, request_id=key_type)
        domain.call("GetKey", selector=key.selector)
        domain.call("CheckPublication", selector=key.selector)
        domain.sign()
        private = generate(key_type, bits=1024)
        pem = private.pem()
        handed_in.append(pem)
        domain.call("ImportKey", selector=f"{key_type}-imported", private_key_pem=pem)
        for wrong in (pem[:-60], pem + pem, b"x" + pem, pem.replace(b"\n", b""), _swapped(pem)):
            with contextlib.suppress(grpc.RpcError):
                domain.call("ImportKey", selector="wrong", private_key_pem=wrong)
        with contextlib.suppress(grpc.RpcError):
            domain.call("ImportKey", selector=pem.decode(), private_key_pem=pem)
        with contextlib.suppress(grpc.RpcError):
            domain.create(selector=pem.decode(), domain=pem.decode(), request_id=pem.decode())
        with contextlib.suppress(grpc.RpcError):
            domain.call("RetireKey", selector=key.selector)
        spoiled = domain.active(key_type=key_type)
        damage(spoiled.domain, spoiled.selector)
        _wait_for_damage(domain, spoiled.selector)
        with contextlib.suppress(grpc.RpcError):
            domain.call("DeleteKey", selector=spoiled.selector)
        domain.sign()
    domain.call("ListKeys")
    domain.call("GetDnsRecords")
    domain.call("ListDomains", pb.ListDomainsRequest())
    return handed_in


def _swapped(pem: bytes) -> bytes:
    lines = pem.splitlines(keepends=True)
    return b"".join([lines[0], *reversed(lines[1:-1]), lines[-1]])


def _wait_for_damage(domain: KeysDomain, selector: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not any("damaged" in note for note in domain.key(selector).notes):
        assert time.monotonic() < deadline, "the damage was not noticed"
        time.sleep(0.1)


def _outside(process: KeysProcess) -> dict[str, str]:
    """All that anybody can see of the service."""
    proc = Path("/proc") / str(process.pid)
    texts = {
        "log": process.log,
        "metrics": process.metrics,
        "environment": (proc / "environ").read_text(errors="replace"),
        "command line": (proc / "cmdline").read_text(errors="replace"),
    }
    for number, answer in enumerate(process.answers):
        texts[f"answer {number}"] = answer.decode("latin-1")
        texts[f"answer {number} in base64"] = base64.b64encode(answer).decode()
    return texts


@pytest.fixture
def dns_server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def _config(server: DnsServer, **keys: object) -> dict[str, Any]:
    return {"keys": {"publication_servers": [server.address], "check_interval": "1s", **keys}}


def test_nothing_private_leaves_the_file_store(tmp_path: Path, dns_server: DnsServer) -> None:
    process = KeysProcess(tmp_path, _config(dns_server))
    process.start()
    pems: list[bytes] = []

    def damage(domain: str, selector: str) -> None:
        file = process.keys / f"{selector}._domainkey.{domain}.json"
        fields = json.loads(file.read_text())
        pems.append(fields["private-key-pem"].encode())
        file.write_text(json.dumps({**fields, "state": fields["private-key-pem"]}))

    try:
        pems += _exercise(KeysDomain(process, [dns_server]), damage)
        files = [json.loads(file.read_text()) for file in process.keys.glob("*.json")]
        pems += [fields["private-key-pem"].encode() for fields in files]
        _assert_secret(pems, process, kept="\n".join(str(fields) for fields in files))
    finally:
        process.close()


def test_nothing_private_leaves_the_kubernetes_store(tmp_path: Path, dns_server: DnsServer) -> None:
    with KubernetesApi() as api:
        environment = {"KUBECONFIG": str(api.write_kubeconfig(tmp_path))}
        process = KeysProcess(
            tmp_path / "a", _config(dns_server, store="kubernetes"), environment=environment
        )
        process.start()
        pems: list[bytes] = []

        def spoil(secret: dict[str, Any]) -> None:
            encoded = secret["data"]["private.pem"]
            pems.append(base64.b64decode(encoded))
            secret["metadata"]["annotations"]["gatepost/created"] = encoded
            secret["data"]["private.pem"] = base64.b64encode(pems[-1][:-70]).decode()

        def damage(domain: str, selector: str) -> None:
            api.edit(f"{selector}.domainkey.{domain}", spoil)

        try:
            domain = KeysDomain(process, [dns_server])
            pems += _exercise(domain, damage)
            api.failing = 500
            with contextlib.suppress(grpc.RpcError):
                domain.create()
            secrets = [each["data"] for each in api.secrets().values()]
            kept = [data["private.pem"] for data in secrets if "private.pem" in data]
            whole = [base64.b64decode(text) for text in kept]
            pems += [pem for pem in whole if pem.rstrip().endswith(b"-----")]
            _assert_secret(pems, process, kept="\n".join(pem.decode() for pem in whole))
        finally:
            process.close()


def _assert_secret(pems: list[bytes], process: KeysProcess, *, kept: str) -> None:
    assert len(pems) >= 8
    forms = set().union(*map(_forms, pems))
    # The search works: it finds the keys where they are supposed to be.
    assert _found(forms, {"store": kept.replace("\\n", "")}) == ["store"]
    outside = _outside(process)
    assert len(process.answers) > 30
    assert '"level": "debug"' in outside["log"]
    assert _found(forms, outside) == []
    assert [name for name, text in outside.items() if "PRIVATE KEY" in text] == []
