"""The delivery service in the loop of a test, against a real nats-server.

async with Delivery(nats_server.url, config) as delivery:
    await delivery.submit(mail("you@example.test", content=b"..."))
    await delivery.settled()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gatepost.keys.v1.keys_pb2_grpc import KeyServiceStub
from gatepost.queue.v1.event_pb2 import Event
from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.model import Config
from services.common.config.source import ConfigSource
from services.common.dns import Resolver
from services.common.jetstream import JetStream, NatsSettings
from services.common.mail.address import parse_mailbox
from services.common.mail.ids import message_id, new_session_id
from services.common.queue.record import (
    SCHEMA_VERSION,
    UnreadableRecord,
    deferred,
    held,
    read_record,
    ready,
)
from services.common.queue.subjects import (
    CONTENT_STREAM,
    DEAD_STREAM,
    EVENTS_STREAM,
    QUEUE_STREAM,
    State,
    event_filter,
    parse_record_subject,
    record_filter,
)
from services.common.rpc.client import channel
from services.common.topology import TopologySettings, ensure
from services.delivery.another_chance import AnotherChance
from services.delivery.attempt import Attempts
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from services.delivery.destinations import Destinations
from services.delivery.events import Events
from services.delivery.intake import Intake
from services.delivery.ledger import LEASE_S, Ledger
from services.delivery.local import LocalDelivery
from services.delivery.mx_places import MxPlaces
from services.delivery.notifier import Notifier
from services.delivery.operations import Operations
from services.delivery.queue_service import QueueService
from services.delivery.remote import RemoteDelivery
from services.delivery.signing import Signer
from services.delivery.slots import Slots
from services.delivery.smtp.session import Patience
from services.delivery.smtp.tls_context import authenticating
from services.delivery.suppressions import Suppressions
from services.delivery.tls.https import HTTPS_PORT, SECONDS, Https
from services.delivery.tls.reporter import TlsReporter
from services.delivery.tls.sts import MtaSts
from services.delivery.tls.sts_fetch import PolicyHosts
from services.delivery.tls.sts_store import StsStore
from services.delivery.worker import Worker
from tests.support.resolver import FakeResolver
from tests.support.smtp_peer import Drip, Script, Silence, SmtpPeer, Step, Then

CONTENT = b"From: me@example.org\r\nSubject: test\r\n\r\nHello\r\n.dot\r\n"
_ASK_AGAIN_S = 0.02

DESTINATION = "dest.test"
FAR = "far.test"
RECIPIENT = f"you@{DESTINATION}"
ACCOUNT = "me@example.org"
"""Who sends by default: what a stranger sends may go to our own domains only."""
_PATIENCE = Patience(quit=0.5)
_PHASES = {"greeting": "greeting", "data": "data", "dot": "end_of_data"}


def mail(
    *recipients: str,
    content: bytes = CONTENT,
    sender: str = "me@example.org",
    **fields: Any,
) -> QueuedMessage:
    """A record as the ingress makes it, for recipients in one domain."""
    mailboxes = [parse_mailbox(recipient, smtputf8=True) for recipient in recipients]
    record = QueuedMessage(
        schema_version=SCHEMA_VERSION,
        message_id=message_id(new_session_id(), 1),
        destination=mailboxes[0].domain,
        sender=sender,
        recipients=[
            Recipient(
                address=str(mailbox),
                original_address=str(mailbox),
                state=RecipientState.RECIPIENT_STATE_PENDING,
            )
            for mailbox in mailboxes
        ],
        inline_content=content,
        size=len(content),
        client_address="192.0.2.1",
        authenticated_account=ACCOUNT,
    )
    record.accept_time.FromDatetime(datetime.now(UTC))
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def relay(peer: SmtpPeer, protocol: str = "smtp", **delivery: Any) -> dict[str, Any]:
    """A configuration in which DESTINATION goes to a peer."""
    return {
        "smtp": {"hostname": "mail.example.test"},
        "domains": {"relay": {DESTINATION: f"{protocol}:127.0.0.1:{peer.port}"}},
        "delivery": delivery,
    }


def local_and_far(peer: SmtpPeer, folder: Path) -> dict[str, Any]:
    """A configuration in which example.test has its mailboxes here and FAR goes to a peer."""
    return {
        "domains": {"local": ["example.test"], "relay": {FAR: f"smtp:127.0.0.1:{peer.port}"}},
        "mailbox": {"directory": str(folder / "mail")},
    }


def patience_with(scripts: Mapping[str, Script]) -> Patience:
    """Little for what a peer with these scripts never says, or only bit by bit.

    As usual for everything else: a machine that is slow for a moment is no silent peer.
    """
    silent = {
        _PHASES.get(name, "command"): 1.0
        for name, script in scripts.items()
        if any(map(_keeps_waiting, script if isinstance(script, list) else [script]))
    }
    return replace(_PATIENCE, **silent)


def _keeps_waiting(step: Step) -> bool:
    if isinstance(step, Then):
        return any(map(_keeps_waiting, step.steps))
    return isinstance(step, Silence | Drip)


class FixedConfig(ConfigSource):
    """A configuration from values instead of a file; `change` replaces it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(None, defaults=values)

    def change(self, values: Mapping[str, Any]) -> None:
        """Put another configuration in place."""
        self.current = Config.model_validate(values)


async def connected_store(url: str) -> JetStream:
    """A store with empty streams."""
    store = JetStream(NatsSettings(urls=[url], client_name="test"))
    await store.start(wait_s=30)
    await ensure(store, TopologySettings())
    streams = (
        QUEUE_STREAM,
        CONTENT_STREAM,
        EVENTS_STREAM,
        DEAD_STREAM,
        "KV_destinations",
        "KV_mta_sts",
        "KV_suppressions",
    )
    for stream in streams:
        await store.purge(stream, ">")
    return store


class Delivery:
    """One delivery process, as far as mail sees it."""

    def __init__(
        self,
        store: JetStream,
        config: Mapping[str, Any],
        *,
        resolver: Resolver | None = None,
        patience: Patience | None = None,
        keys: str = "127.0.0.1:1",
        drain_s: float = 5.0,
        lease_s: float = LEASE_S,
        mx_port: int = 25,
        policy_port: int = HTTPS_PORT,
        fetch_seconds: float = SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`mx_port` is where mail exchanges listen, `policy_port` where MTA-STS policy hosts do;
        `now` is the clock that policies expire by, `clock` the one of the queue."""
        self.store = store
        self.source = FixedConfig(config)
        self.events_sent = Events(store)
        ledger = Ledger(store, lease_s=lease_s)
        resolver = resolver or FakeResolver()
        https = Https(
            resolver,
            allowed=lambda: self.source.current.delivery.allowed_networks,
            context=lambda: authenticating(self.source.current.delivery.extra_ca_file),
            port=policy_port,
            seconds=fetch_seconds,
        )
        hosts = PolicyHosts(https)
        self._sts = MtaSts(resolver, hosts, StsStore(store, now=now, clock=time.monotonic), now=now)
        exchanges = MxPlaces(
            self.source,
            resolver,
            self._sts,
            validating=self.source.current.dns.validating,
            port=mx_port,
        )
        self.reporter = TlsReporter(store, self.source, resolver, https, now=clock)
        self._remote = RemoteDelivery(
            self.source,
            resolver,
            exchanges,
            on_tls=self.reporter.add,
            patience=patience or _PATIENCE,
        )
        self._local = LocalDelivery(self.source)
        self._channel = channel(keys)
        attempts = Attempts(
            self.source,
            local=self._local,
            remote=self._remote,
            signer=Signer(KeyServiceStub(self._channel)),
        )
        self.slots = Slots(lambda: self.source.current.delivery, time.monotonic)
        self.destinations = Destinations(
            store, clock, on_failing=self.slots.leave_alone, on_mended=self.slots.try_again
        )
        self.slots.on_left_alone = self.destinations.tell_failing
        self.suppressions = Suppressions(self.store, self.source, clock)
        notifier = Notifier(store, ledger, self.events_sent, self.source)
        chance = AnotherChance(self.source, self.destinations)
        self.operations = Operations(store, notifier, clock, on_retry=chance.give)
        self.service = QueueService(
            store,
            self.operations,
            self.destinations,
            self.events_sent,
            self.suppressions,
            clock,
        )
        self.worker = Worker(
            store,
            self.source,
            attempts=attempts,
            slots=self.slots,
            ledger=ledger,
            notifier=notifier,
            events=self.events_sent,
            destinations=self.destinations,
            suppressions=self.suppressions,
            now=clock,
        )
        self.intake = Intake(
            store,
            self.worker.handle,
            room=lambda: self.source.current.delivery.concurrency.total + ledger.leaving,
            drain_s=drain_s,
        )
        ledger.on_leaving = self.intake.look_again
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.intake.run(), name="intake")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.intake.drain()
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait({self._running})
        await self._remote.close()
        await self._sts.close()
        await self._local.close()
        await self._channel.close()


async def put_to_wait(
    store: JetStream,
    *records: QueuedMessage,
    state: State = State.DEFERRED,
    reason: str = "451 4.3.0 not now",
) -> None:
    """Put records into the queue as waiting for an hour, or held."""
    due = datetime.now(UTC) + timedelta(hours=1)
    for record in records:
        await move_to_stream(Batcher(store), record)
        record.wait_reason = reason
        await store.publish(deferred(record, due) if state is State.DEFERRED else held(record))


async def submit(store: JetStream, *records: QueuedMessage) -> None:
    """Put records into the queue as the ingress does."""
    await store.publish_batch([ready(record) for record in records])


async def queued(store: JetStream, state: State | None = None) -> list[tuple[State, QueuedMessage]]:
    """The records in the queue, with their states."""
    stored = await store.page(
        QUEUE_STREAM, record_filter(state=state), after_sequence=0, count=1000
    )
    found = []
    for each in stored:
        held, key = parse_record_subject(each.subject)
        found.append((held, read_record(each.data, key)))
    return found


async def wait_queued(
    store: JetStream, *states: State, seconds: float = 30.0
) -> list[QueuedMessage]:
    """The records, once the states of all in the queue are these."""
    wanted: Sequence[State] = sorted(states)
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = await queued(store)
        except UnreadableRecord:
            await asyncio.sleep(_ASK_AGAIN_S)
            continue
        if sorted(state for state, _ in found) == wanted:
            return [record for _, record in found]
        if time.monotonic() > deadline:
            raise TimeoutError(f"the queue holds {found}, not {wanted}")
        await asyncio.sleep(_ASK_AGAIN_S)


async def contents(store: JetStream) -> list[str]:
    """The subjects of the stored chunks."""
    stored = await store.page(CONTENT_STREAM, "content.>", after_sequence=0, count=1000)
    return [each.subject for each in stored]


async def events(store: JetStream, message: str) -> list[Event]:
    """The events of a mail."""
    stored = await store.page(EVENTS_STREAM, event_filter(message), after_sequence=0, count=1000)
    return [Event.FromString(each.data) for each in stored]


async def until(condition: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Return once the condition holds. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {seconds:g} s")
        await asyncio.sleep(_ASK_AGAIN_S)
