"""The steps of the test, in their order; each is one function that raises `Failed`."""

from __future__ import annotations

import base64
import json
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from tests.cluster.books import books
from tests.cluster.cluster import Cluster, Failed, names, until
from tests.cluster.objects import (
    DOMAIN,
    SINK,
    SINK_PORT,
    namespace,
    scripts,
    sender,
    sink,
)
from tests.support.chart import CHART
from tests.support.ledger import Ledger

KEY_DOMAIN: Final = "example.org"
COMPONENTS: Final = ("ingress", "policy", "delivery", "keys", "nats")
ENOUGH: Final = 100
"""Mails, to call it working."""
DUPLICATES_PER_KILL: Final = 50
"""Mail that was in hand when a pod was killed may arrive twice."""
KINDS: Final = (
    "deployments,statefulsets,jobs,pods,services,configmaps,secrets,serviceaccounts,roles,"
    "rolebindings,networkpolicies,poddisruptionbudgets,persistentvolumeclaims"
)


@dataclass(slots=True, kw_only=True)
class Run:
    """What the steps share."""

    cluster: Cluster
    image: str
    release: str
    storage_class: str = ""
    values: Sequence[str] = ()
    senders: list[str] = field(default_factory=list)
    kills: int = 0

    @property
    def prefix(self) -> str:
        """What the names of the release's objects begin with."""
        name = self.release
        return name if "gatepost" in name else f"{name}-gatepost"

    def settings(self, **pods: Any) -> str:
        """The chart's values, over the files that the caller named."""
        repository, _, tag = self.image.rpartition(":")
        host = f"{SINK}.{self.cluster.namespace}.svc.cluster.local"
        return yaml.safe_dump(
            {
                "image": {"repository": repository, "tag": tag},
                "nats": {"storage": {"size": "1Gi", "className": self.storage_class}},
                "config": {
                    "domains": {"relay": {DOMAIN: f"lmtp:{host}:{SINK_PORT}"}},
                    # What a killed pod had in hand is tried again soon.
                    "delivery": {"retry": {"interval": "5s", "max_retries": 1000}},
                },
                "pods": pods,
            }
        )

    def helm(self, *command: str, given: str) -> str:
        """Install or upgrade, and wait."""
        files = [option for file in self.values for option in ("--values", file)]
        options = ("--values", "-", "--wait", "--timeout", "10m")
        return self.cluster.helm(*command, self.release, str(CHART), *files, *options, given=given)

    def workloads(self) -> list[str]:
        """What `kubectl rollout status` is asked about."""
        kinds = {"nats": "statefulset"}
        return [
            f"{kinds.get(name, 'deployment')}/{self.prefix}-{name}" for name in reversed(COMPONENTS)
        ]

    def load(self, *, seconds: int, sessions: int) -> str:
        """Begin to send; the name of the pod that does."""
        name = f"cluster-test-sender-{len(self.senders)}"
        host = f"{self.prefix}-ingress.{self.cluster.namespace}.svc.cluster.local"
        arguments = [f"{host}:25", DOMAIN, str(seconds), str(sessions)]
        self.cluster.apply(sender(name, self.image, arguments))
        self.cluster.wait_running(name)
        self.senders.append(name)
        return name

    def finish(self, pod: str) -> None:
        """Tell a sender to stop, and return when it has."""
        self.cluster.kubectl("exec", pod, "--", "touch", "/tmp/stop")
        until(
            f"{pod} ends",
            lambda: {"done": True} in self.cluster.lines(pod)[-1:],
            seconds=150,
        )

    def ledger(self) -> Ledger:
        """The books as they are now."""
        sent = [line for pod in self.senders for line in self.cluster.lines(pod)]
        return books(sent, self.cluster.lines(SINK))

    def balance(self) -> str:
        """Wait until nothing is under way, and compare. Raises `Failed` with what is wrong."""
        until("all mail arrives", lambda: not self.ledger().missing(), seconds=300)
        ledger = self.ledger()
        allowed = len(ledger.unknown) + DUPLICATES_PER_KILL * self.kills
        if problems := ledger.problems(duplicates_allowed=allowed):
            raise Failed("\n".join(problems[:20]))
        if not ledger.accepted:
            raise Failed("no mail was accepted at all")
        return (
            f"{len(ledger.accepted)} accepted and delivered, {len(ledger.refused)} told to come "
            f"again, {len(ledger.unknown)} in doubt, {ledger.duplicates} twice"
        )


def prepare(run: Run) -> str:
    """A namespace, a sink, the scripts."""
    run.cluster.apply(namespace(run.cluster.namespace))
    run.cluster.apply(scripts(), *sink(run.image))
    run.cluster.wait_running(SINK)
    return f"namespace {run.cluster.namespace}"


def install(run: Run) -> str:
    """`helm install --wait`."""
    notes = run.helm("install", given=run.settings())
    if "kubectl get secret" not in notes:
        raise Failed(f"the notes do not tell how to read the password:\n{notes}")
    return "every pod is ready"


def chart_test(run: Run) -> str:
    """`helm test`."""
    output = run.cluster.helm("test", run.release, "--logs", "--timeout", "5m")
    lines = [line for line in output.splitlines() if "the mail came back" in line]
    return lines[0] if lines else "passed"


def submit(run: Run) -> str:
    """The account of the notes logs in through the Service, and its mail goes out."""
    secret = run.cluster.get("secret", f"{run.prefix}-accounts")["data"]
    user, password = (base64.b64decode(secret[key]).decode() for key in ("address", "password"))
    context = ssl.create_default_context()
    # The certificate was made by the chart, for the name of the Service.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        run.cluster.forwarded(f"service/{run.prefix}-ingress", 587) as port,
        smtplib.SMTP("127.0.0.1", port, timeout=60) as client,
    ):
        client.starttls(context=context)
        client.login(user, password)
        text = f"From: {user}\r\nTo: sink@{DOMAIN}\r\nSubject: submitted\r\n\r\nHello\r\n"
        client.sendmail(user, [f"sink@{DOMAIN}"], text)
    until(
        "the submitted mail arrives",
        lambda: any(line["subject"] == "submitted" for line in run.cluster.lines(SINK)),
        seconds=120,
    )
    return f"as {user}"


def mail(run: Run) -> str:
    """Mail in and out, through the Service."""
    load = run.load(seconds=600, sessions=4)
    until("mail is accepted", lambda: len(run.ledger().accepted) >= ENOUGH, seconds=120)
    run.finish(load)
    return run.balance()


def key(run: Run) -> str:
    """A DKIM key is made, and is found in its Secret."""
    deployment = f"deployment/{run.prefix}-keys"
    output = run.cluster.kubectl(
        *("exec", deployment, "--", "gatepost", "keys", "create", KEY_DOMAIN, "--json")
    )
    made = json.loads(output)
    secret = f"{made['selector']}.domainkey.{KEY_DOMAIN}"
    if "private.pem" not in run.cluster.get("secret", secret)["data"]:
        raise Failed(f"the Secret {secret} has no private.pem")
    return secret


def upgrade(run: Run) -> str:
    """An upgrade that replaces every pod, and a rollback, under load."""
    before = run.cluster.get("secret", f"{run.prefix}-accounts")["data"]
    load = run.load(seconds=1800, sessions=4)
    run.helm("upgrade", given=run.settings(annotations={"cluster-test": "upgraded"}))
    run.cluster.rolled_out(run.workloads())
    run.cluster.helm("rollback", run.release, "1", "--wait", "--timeout", "10m")
    run.cluster.rolled_out(run.workloads())
    run.finish(load)
    if run.cluster.get("secret", f"{run.prefix}-accounts")["data"] != before:
        raise Failed("the upgrade changed the account's Secret")
    return run.balance()


def kill(run: Run) -> str:
    """A pod of each kind is killed under load, without a word to it."""
    load = run.load(seconds=1800, sessions=4)
    for component in COMPONENTS:
        selector = (
            f"app.kubernetes.io/instance={run.release},app.kubernetes.io/component={component}"
        )
        pods = run.cluster.get("pods", "--selector", selector)["items"]
        if not pods:
            raise Failed(f"there is no pod of {component}")
        victim = pods[0]["metadata"]["name"]
        run.cluster.kubectl("delete", "pod", victim, "--grace-period=0", "--force", "--wait=false")
        run.kills += 1
        until(f"{victim} is gone", _gone(run, pods[0]["metadata"]["uid"], selector), seconds=120)
        run.cluster.rolled_out(run.workloads())
    run.finish(load)
    return run.balance()


def _gone(run: Run, uid: str, selector: str) -> Callable[[], bool]:
    def gone() -> bool:
        pods = run.cluster.get("pods", "--selector", selector)["items"]
        return all(pod["metadata"]["uid"] != uid for pod in pods)

    return gone


def uninstall(run: Run) -> str:
    """`helm uninstall` leaves the queue's volumes and the keys, as it says, and nothing else."""
    options = ("--cascade", "foreground", "--wait", "--timeout", "5m")
    run.cluster.helm("uninstall", run.release, *options)
    ours = ("--selector", f"app.kubernetes.io/instance={run.release}")
    volumes = f"PersistentVolumeClaim/data-{run.prefix}-nats-"

    def more() -> list[str]:
        left = names(run.cluster.get(KINDS, *ours))
        return [each for each in left if not each.startswith(volumes)]

    try:
        until("all else is gone", lambda: not more(), seconds=120)
    except Failed as error:
        raise Failed(f"left behind: {', '.join(more())}") from error
    left = names(run.cluster.get(KINDS, *ours))
    if not left:
        raise Failed("the volume of the queue is gone")
    keys = names(run.cluster.get("secrets", "--selector", "app.kubernetes.io/part-of=gatepost"))
    if not any(f".domainkey.{KEY_DOMAIN}" in each for each in keys):
        raise Failed("the key's Secret is gone")
    return f"left: {', '.join([*left, *keys])}"


STEPS: Final[Sequence[Callable[[Run], str]]] = (
    prepare,
    install,
    chart_test,
    submit,
    mail,
    key,
    upgrade,
    kill,
    uninstall,
)
