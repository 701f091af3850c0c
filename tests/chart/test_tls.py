"""What is said inside, encrypted: certificates that fit, and NATS as the chart runs it with TLS."""

import asyncio
import base64
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from services.common.config.loader import load
from services.common.jetstream import JetStream
from services.common.store import NatsSettings, Outgoing, StoreError
from services.common.tls import CertificateFiles, check_pair
from tests.chart.test_nats import connected, eventually, made
from tests.support.certificates import CertificateFolder
from tests.support.chart import Chart, Refused, container, render
from tests.support.chart_nats import ChartNats

INSIDE = {"nats": {"tls": {"enabled": True}}, "grpc": {"tls": {"enabled": True}}}
HOST = "post-gatepost-{}.mail.svc.cluster.local"


def unpacked(chart: Chart, secret: str, folder: Path) -> CertificateFolder:
    """A Secret that the chart made, as files."""
    files = CertificateFolder(folder)
    for name, text in chart.one("Secret", secret)["data"].items():
        (folder / name).write_bytes(base64.b64decode(text))
    return files


@pytest.mark.parametrize(
    ("secret", "names"),
    [
        ("nats-tls", {HOST.format("nats"), "*." + HOST.format("nats-nodes")}),
        ("grpc-tls", {*map(HOST.format, ("policy", "delivery", "keys")), "localhost"}),
    ],
)
def test_the_certificate_that_is_made_fits(secret: str, names: set[str], tmp_path: Path) -> None:
    files = unpacked(render(INSIDE), secret, tmp_path)
    check_pair(CertificateFiles(files.certificate, files.key))
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    leaf.verify_directly_issued_by(authority)
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(found.get_values_for_type(x509.DNSName)) == names
    addresses = [str(each) for each in found.get_values_for_type(x509.IPAddress)]
    assert addresses == (["127.0.0.1"] if secret == "grpc-tls" else [])


def test_cert_manager_is_asked_for_the_same_names() -> None:
    issuer = {"name": "ca", "kind": "ClusterIssuer"}
    tls = {"enabled": True, "certManager": {"enabled": True, "issuerRef": issuer}}
    chart = render({"nats": {"tls": tls}, "grpc": {"tls": tls}})
    grpc = chart.one("Certificate", "grpc-tls")["spec"]
    assert grpc["dnsNames"][:3] == [HOST.format(name) for name in ("policy", "delivery", "keys")]
    assert grpc["ipAddresses"] == ["127.0.0.1"]
    nats = chart.one("Certificate", "nats-tls")["spec"]
    assert nats["dnsNames"] == [HOST.format("nats"), "*." + HOST.format("nats-nodes")]
    for spec in (grpc, nats):
        assert spec["issuerRef"] == issuer
        assert {"server auth", "client auth"} <= set(spec["usages"])


@pytest.mark.parametrize("service", ["ingress", "policy", "delivery", "keys", "topology"])
def test_the_services_are_told(service: str, tmp_path: Path) -> None:
    chart = render(INSIDE)
    file = tmp_path / "gatepost.yaml"
    file.write_text(chart.config_text(service), encoding="utf-8")
    config = load(file)
    assert config.nats.urls == (f"tls://{HOST.format('nats')}:4222",)
    mounted = {mount["mountPath"] for mount in container(chart.pod(service))["volumeMounts"]}
    if service != "keys":
        assert str(config.nats.tls.ca_file.parent) in mounted  # type: ignore[union-attr]
    if service != "topology":
        assert config.services.tls.enabled
        assert str(config.services.tls.ca_file.parent) in mounted  # type: ignore[union-attr]
    if service in {"policy", "delivery", "keys"}:
        variables = {each["name"]: each["value"] for each in container(chart.pod(service))["env"]}
        assert variables["GATEPOST_CA_FILE"] == str(config.services.tls.ca_file)


def test_nothing_is_encrypted_unless_it_is_asked_for() -> None:
    chart = render()
    assert not [
        each
        for each in chart.of("Secret")
        if each["metadata"]["name"].endswith("-tls")
        and each["metadata"]["name"] != "post-gatepost-tls"
    ]
    assert "nats://" in chart.config_text("ingress")


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_three_encrypted_nodes(tmp_path: Path) -> None:
    """They find each other, take no clear word, and show a renewed certificate within seconds."""
    files = CertificateFolder(tmp_path / "tls")
    files.issue("127.0.0.1")
    values = {"nats": {"replicas": 3, "storage": {"size": "1Gi"}, "tls": {"enabled": True}}}
    cluster = ChartNats(render(values), tmp_path, certificates=files)
    await asyncio.to_thread(cluster.start)
    try:
        await made(cluster, 3)
        async with connected(cluster, "ingress") as ingress:
            await eventually(lambda: _published(ingress))
        tls = cluster.settings("ingress")
        plain = NatsSettings(
            urls=[url.replace("tls:", "nats:") for url in tls.urls],
            client_name="test",
            username="ingress",
            password_file=tls.password_file,
        )
        # nats-py encrypts when it is asked to, and then does not know whom to trust.
        store = JetStream(plain)
        await store.start(wait_s=2)
        assert not store.connected
        await store.close()
        files.issue("127.0.0.1")
        leaf, end, _ = files.certificate.read_text("ascii").partition("-----END CERTIFICATE-----")
        wanted = ssl.PEM_cert_to_DER_cert(leaf + end)
        await eventually(lambda: _all_show(cluster, wanted))
        async with connected(cluster, "ingress") as ingress:
            await eventually(lambda: _published(ingress))
    finally:
        cluster.close()


async def _published(store: JetStream) -> bool:
    try:
        await store.publish(Outgoing("queue.ready.a~org.a-1", b"record"))
    except StoreError:
        return False
    return True


async def _all_show(cluster: ChartNats, wanted: bytes) -> bool:
    shown = [await asyncio.to_thread(_shown, port) for port in cluster.ports]
    return all(each == wanted for each in shown)


def _shown(port: int) -> bytes | None:
    """The certificate behind NATS's greeting, whoever certified it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        while not plain.recv(4096).endswith(b"\n"):
            pass
        with context.wrap_socket(plain) as connection:
            return connection.getpeercert(binary_form=True)


@pytest.mark.parametrize("issuer", [{}, {"kind": "ClusterIssuer"}, {"name": ""}])
@pytest.mark.parametrize("key", ["tls", "nats.tls", "grpc.tls"])
def test_an_issuer_without_a_name_is_refused(key: str, issuer: dict[str, str]) -> None:
    given: dict[str, Any] = {"certManager": {"enabled": True, "issuerRef": issuer}}
    # The SMTP ports have a certificate always.
    values = given if key == "tls" else given | {"enabled": True}
    for part in reversed(key.split(".")):
        values = {part: values}
    with pytest.raises(Refused, match=rf"\s{key}\.certManager\.issuerRef\.name: name the Issuer"):
        render(values)
