"""The ingress's sessions as they run in production, with a scripted policy and a real nats-server.

Listeners: `mx` (STARTTLS), `submission` (STARTTLS), `submissions` (implicit TLS), and `plain`, an
MX without TLS; all on free ports of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.config.loader import overlaid
from services.common.config.source import ConfigSource
from services.common.jetstream import JetStream
from services.common.queue.content import chunk_digest, content_digest
from services.common.queue.record import read_record
from services.common.queue.subjects import (
    CONTENT_STREAM,
    QUEUE_STREAM,
    content_filter,
    content_subject,
    parse_record_subject,
)
from services.common.rpc.client import channel
from services.common.store import NatsSettings
from services.common.tasks import Tasks
from services.common.tls import CertificateFiles, ServerTls, ensure_self_signed
from services.common.topology import TopologySettings, ensure
from services.ingress.cleaner import Cleaner
from services.ingress.dialogue import Edge
from services.ingress.gate import Gate
from services.ingress.listeners import Listeners
from services.ingress.login_guard import BUCKET, LoginGuard
from services.ingress.mail_store import MailStore
from services.ingress.policy import Policy
from services.ingress.storage_watch import StorageWatch
from services.ingress.suspicion import Suspicion
from tests.support.nats_server import NatsServer
from tests.support.scripted_policy import ScriptedPolicy, serve

HOSTNAME = "mx.example.test"
_LISTENERS = (
    ("mx", "mx", "starttls"),
    ("plain", "mx", "none"),
    ("submission", "submission", "starttls"),
    ("submissions", "submission", "implicit"),
)


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A record and the content that it refers to."""

    record: QueuedMessage
    content: bytes


@dataclass
class RunningEdge:
    """Sessions that can be connected to."""

    policy: ScriptedPolicy
    store: JetStream
    cleaner: Cleaner
    listeners: Listeners
    gate: Gate
    source: ConfigSource
    config_file: Path
    certificate: CertificateFiles
    watch: StorageWatch
    values: dict[str, Any] = field(default_factory=dict)

    def port(self, listener: str = "mx") -> int:
        """Where a listener is."""
        return self.listeners.ports[listener]

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change the configuration, as an edited file does."""
        self.values = overlaid(self.values, changes)
        self.config_file.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        self.source.refresh()

    async def mails(self) -> list[StoredMail]:
        """Every record in the queue, in the order of storing, with its content checked."""
        found = await self.store.page(QUEUE_STREAM, "queue.>", after_sequence=0, count=1000)
        mails = []
        for stored in found:
            record = read_record(stored.data, parse_record_subject(stored.subject)[1])
            mails.append(StoredMail(record, await self._content(record)))
        return mails

    async def chunks(self) -> int:
        """How many chunks of content are stored."""
        state = await self.store.stream_state(CONTENT_STREAM)
        assert state is not None
        return state.messages

    async def clear(self) -> None:
        """Empty the queue, and forget failed logins."""
        await self.store.purge(QUEUE_STREAM, "queue.>")
        await self.store.purge(CONTENT_STREAM, content_filter("*"))
        await self.store.purge(f"KV_{BUCKET}", f"$KV.{BUCKET}.>")

    async def _content(self, record: QueuedMessage) -> bytes:
        if record.WhichOneof("content") == "inline_content":
            return record.inline_content
        reference = record.content_reference
        chunks = []
        for number in range(1, reference.chunks + 1):
            subject = content_subject(reference.content_id, number)
            stored = await self.store.last(CONTENT_STREAM, subject)
            assert stored is not None, f"{subject} is missing"
            chunks.append(stored.data)
        assert content_digest([chunk_digest(chunk) for chunk in chunks]) == reference.sha256
        content = b"".join(chunks)
        assert len(content) == record.size
        return content


@asynccontextmanager
async def running_edge(
    folder: Path,
    nats: NatsServer,
    changes: Mapping[str, Any] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[RunningEdge]:
    """Everything started, and stopped again afterwards; the queue is empty at the start. By `clock`
    policy is asked again after a pause."""
    certificate = ensure_self_signed(folder / "tls", HOSTNAME)
    values = overlaid(_values(certificate), changes or {})
    config_file = folder / "gatepost.yaml"
    config_file.write_text(yaml.safe_dump(values), encoding="utf-8")
    source = ConfigSource(config_file)
    tls = ServerTls([certificate])
    tls.load()
    policy = ScriptedPolicy()  # type: ignore[abstract]  # what is not scripted is not called
    store = JetStream(NatsSettings(urls=[nats.url], client_name="test"))
    await store.start(wait_s=10)
    await ensure(store, TopologySettings(events_max_octets=2**20))
    cleaner, gate = Cleaner(store), Gate(Suspicion())
    async with asyncio.TaskGroup() as group, serve(policy) as target:
        stopping = asyncio.Event()
        tasks = Tasks(group, stopping)
        tasks.spawn("cleaner", cleaner.run())
        opened = channel(target)
        watch = StorageWatch(store, lambda: source.current.smtp.limits)
        mail_store = MailStore(store, cleaner, is_full=lambda: watch.is_full)
        guard = LoginGuard(store, lambda: source.current.smtp.limits)
        questions = Policy(
            opened,
            check_timeout_s=lambda: source.current.policy.check_timeout.total_seconds(),
            clock=clock,
        )
        edge = Edge(source, questions, mail_store, guard)
        listeners = Listeners(edge, gate, tls)
        await listeners.start(tasks.spawn)
        running = RunningEdge(
            policy,
            store,
            cleaner,
            listeners,
            gate,
            source,
            config_file,
            certificate,
            watch,
            values,
        )
        await running.clear()
        try:
            yield running
        finally:
            stopping.set()
            await listeners.drain(grace_s=1.2)
            await tasks.cancel(seconds=5)
            await opened.close()
            await store.close()


def listener_values() -> list[dict[str, Any]]:
    """The listeners as they stand in the configuration."""
    return [
        {"name": name, "address": "127.0.0.1", "port": 0, "role": role, "tls": tls}
        for name, role, tls in _LISTENERS
    ]


def _values(certificate: CertificateFiles) -> dict[str, Any]:
    return {
        "smtp": {
            "hostname": HOSTNAME,
            "listeners": listener_values(),
            "tls": {
                "certificate_file": str(certificate.certificate),
                "key_file": str(certificate.key),
            },
        },
        "domains": {"local": ["example.test", "example.org"]},
    }
