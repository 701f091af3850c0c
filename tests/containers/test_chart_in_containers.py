"""The image and the chart together: all services and NATS as containers, and a mail through them.

Needs root, Podman with runc, and an image of the present sources, which `make container-image`
builds. Where one is not there it says so, loudly.
"""

import os
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from tests.support.chart import ROOT, SERVICES, Chart, render
from tests.support.chart_containers import Containers, missing, sources_of

pytestmark = pytest.mark.timeout(400)

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
IMAGE = os.environ.get("GATEPOST_IMAGE", f"localhost/gatepost:{VERSION}")


def chart() -> Chart:
    """With what a network of loopback alone asks for: no DNS, no Kubernetes API."""
    repository, _, tag = IMAGE.rpartition(":")
    return render(
        {
            "image": {"repository": repository, "tag": tag},
            "config": {
                # Nobody answers there, which checks take for "cannot tell".
                "dns": {"servers": ["127.0.0.1:53"], "attempt_timeout": "200ms", "timeout": "1s"},
                "delivery": {
                    "sender_smarthosts": {"helm-test.invalid": {"host": "127.0.0.1", "port": 2500}}
                },
                "keys": {"store": "file", "directory": "/var/lib/gatepost/keys"},
            },
            "nats": {"tls": {"enabled": True}},
            "grpc": {"tls": {"enabled": True}},
            # Nothing maps ports here, as a Service does.
            "ingress": {"service": {"ports": {"submission": 2587}}},
            "keys": {
                "extraVolumes": [{"name": "keys", "emptyDir": {}}],
                "extraVolumeMounts": [{"name": "keys", "mountPath": "/var/lib/gatepost"}],
            },
        }
    )


def present_sources() -> str:
    return subprocess.run(
        [str(ROOT / "tools" / "image-sources")], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    if lacking := missing():
        pytest.skip(f"NO CONTAINER WAS TESTED: this machine lacks {lacking}")
    if sources_of(IMAGE) != present_sources():
        pytest.skip(f"NO CONTAINER WAS TESTED: no {IMAGE} of these sources: make container-image")
    containers = Containers(chart(), tmp_path_factory.mktemp("containers"))
    try:
        containers.start("nats", "topology", *SERVICES)
        assert containers.wait_ended("topology") == 0, containers.logs("topology")
        for service in SERVICES:
            containers.wait_ready(service)
        yield containers
    finally:
        containers.close()


def test_a_mail_goes_through(running: Containers) -> None:
    running.start("test")
    code = running.wait_ended("test", timeout_s=200)
    output = running.logs("test")
    assert code == 0, f"{output}\n{running.logs('ingress')}\n{running.logs('delivery')}"
    assert "the mail came back" in output


SUBMIT = """
import smtplib, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
user, password, recipient = sys.argv[1:]
with smtplib.SMTP("127.0.0.1", 2587, timeout=30) as client:
    client.starttls(context=context)
    client.login(user, password)
    client.sendmail(user, [recipient], f"From: {user}\\r\\nSubject: x\\r\\n\\r\\nHello\\r\\n")
    print("accepted")
"""


def test_the_account_that_was_made_submits_mail(running: Containers) -> None:
    account = running.secret("post-gatepost-accounts")
    user, password = (account[key].decode() for key in ("address", "password"))
    command = ("python", "-c", SUBMIT, user, password, "you@example.com")
    assert running.run_inside("ingress", *command) == "accepted\n"


@pytest.mark.parametrize("component", ["nats", *SERVICES])
def test_a_process_has_no_rights(running: Containers, component: str) -> None:
    lines = running.run_inside(component, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert status["Uid"].split() == ["10001"] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


@pytest.mark.parametrize("component", SERVICES)
def test_nothing_can_be_written(running: Containers, component: str) -> None:
    for place in ("/", "/tmp", "/opt/gatepost", "/etc/gatepost/config", "/etc/gatepost/tokens"):
        command = f"touch {place}/x 2>/dev/null && echo written || echo refused"
        assert running.run_inside(component, "sh", "-c", command) == "refused\n", place


def test_the_commands_of_the_notes_work(running: Containers) -> None:
    # It says 12 of mail that is refused; that for the domain of the test is, from strangers.
    question = "--ip 192.0.2.1 --helo mail.example.org --from a@example.org"
    ask = f"gatepost check {question} --to you@helm-test.invalid; test $? -eq 12"
    assert "550 5.7.1" in running.run_inside("policy", "sh", "-c", ask)
    running.run_inside("delivery", "gatepost", "queue", "list")
    running.run_inside("keys", "gatepost", "keys", "list")


def test_the_image_is_small(running: Containers) -> None:
    done = subprocess.run(
        ["podman", "image", "inspect", "--format", "{{.Size}}", IMAGE],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < 250_000_000


def test_the_image_has_no_compiler(running: Containers) -> None:
    found = running.run_inside("policy", "sh", "-c", "command -v cc gcc g++ make pip || echo none")
    # The base image may bring a pip; what is installed is what the lock says, for root alone.
    assert [line for line in found.split() if "pip" not in line] in ([], ["none"])


def test_every_service_stops_in_order_when_it_is_told_to(running: Containers) -> None:
    for service in SERVICES:
        assert running.stop(service) == 0, running.logs(service)
