"""The one module that knows nats-py: JetStream as the rest of Gatepost uses it.

Guarantees
- A call either returns after the server acknowledged, or raises a `StoreError`. Nothing of nats-py
  leaks out of here, neither types nor exceptions.
- A publish that failed while the connection was away is never sent later: nothing is buffered
  (`pending_size=0`), so a client that was told 451 is not surprised by a second copy.
- The connection is made and remade for ever, in the background. Until it stands every call raises
  `Unavailable` at once.

Life cycle: `JetStream(settings)` → `start()` (returns at once) → calls → `close()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue
from prometheus_client import Counter, Gauge, Histogram

from services.common.store import (
    Conflict,
    ConsumerState,
    Full,
    Missing,
    NatsSettings,
    Outgoing,
    Refused,
    StorageUse,
    Stored,
    StoreError,
    StreamState,
    Unavailable,
)

__all__ = [
    "MAX_BATCH",
    "Bucket",
    "Conflict",
    "Consumer",
    "ConsumerState",
    "Delivery",
    "Full",
    "JetStream",
    "Missing",
    "NatsSettings",
    "Outgoing",
    "Refused",
    "StorageUse",
    "StoreError",
    "Stored",
    "StreamState",
    "Unavailable",
]

_log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 5.0
"""One call to the server. It answers in milliseconds; a new leader is elected in 2–4 s."""

MAX_BATCH: Final = 1000
"""The server's limit for an atomic batch."""

PULL_HEARTBEAT_S: Final = 2.5
"""How often the server says that it has nothing for us; twice this without a word: it is away."""

_INSUFFICIENT_RESOURCES: Final = frozenset({10023, 10047, 10074, 10077})
"""JetStream's codes for: no resources, no storage, maximum bytes reached, storing failed."""

_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})

CONNECTED = Gauge("gatepost_nats_connected", "1 while the connection to NATS stands.")
RECONNECTS = Counter("gatepost_nats_reconnects_total", "Connections to NATS that were remade.")
REQUEST_SECONDS = Histogram(
    "gatepost_nats_request_seconds",
    "Time until JetStream answered, by kind of call.",
    ["call"],  # publish, batch, ack
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
REQUEST_ERRORS = Counter(
    "gatepost_nats_errors_total",
    "Calls to JetStream that failed, by kind of failure.",
    ["reason"],  # unavailable, full, conflict, refused
)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn nats-py's exceptions into ours."""
    try:
        yield
    except StoreError:
        raise
    except nats.js.errors.APIError as error:
        code = getattr(error, "err_code", None) or 0
        text = getattr(error, "description", None) or str(error)
        if code in _WRONG_LAST_SEQUENCE or isinstance(
            error, nats.js.errors.KeyWrongLastSequenceError
        ):
            REQUEST_ERRORS.labels("conflict").inc()
            raise Conflict(text) from error
        if code in _INSUFFICIENT_RESOURCES:
            REQUEST_ERRORS.labels("full").inc()
            raise Full(text) from error
        if isinstance(error, nats.js.errors.ServiceUnavailableError):
            REQUEST_ERRORS.labels("unavailable").inc()
            raise Unavailable(text) from error
        if isinstance(error, nats.js.errors.NotFoundError):
            raise Missing(text) from error
        REQUEST_ERRORS.labels("refused").inc()
        raise Refused(f"{text} (error code {code})") from error
    except nats.js.errors.NoStreamResponseError as error:
        REQUEST_ERRORS.labels("unavailable").inc()
        raise Unavailable("no stream answers on this subject") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        REQUEST_ERRORS.labels("unavailable").inc()
        raise Unavailable(f"{type(error).__name__}: {error}") from error


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    return Stored(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        data=message.data,
        time=datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        headers=headers,
    )


class Delivery:
    """A message that a consumer handed to us and that waits for our word."""

    __slots__ = ("_message", "data", "headers", "redelivered", "sequence", "subject", "time")

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.subject = message.subject
        self.data = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        metadata = message.metadata
        self.sequence = metadata.sequence.stream
        self.time = metadata.timestamp
        """When the server stored it, by the server's clock."""
        self.redelivered = metadata.num_delivered > 1
        """True: it was handed out before. False proves nothing after a crash of the server."""

    async def ack(self) -> None:
        """Done with it, and wait until the server has noted so (a double acknowledgement)."""
        with REQUEST_SECONDS.labels("ack").time(), _translated():
            await self._message.ack_sync(timeout=REQUEST_TIMEOUT_S)

    async def in_progress(self) -> None:
        """Still at work: the server waits for `ack_wait` from now on."""
        with _translated():
            await self._message.in_progress()

    async def give_back(self) -> None:
        """Let another worker have it at once."""
        with _translated():
            await self._message.nak()


class Consumer:
    """A durable pull consumer. Pull in a loop; `close` gives back what was sent but not taken."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._pulls = 0

    async def pull(self, count: int, *, wait_s: float) -> AsyncIterator[Delivery]:
        """Ask for `count` messages and yield each as it comes; end after these or `wait_s` seconds.

        `wait_s` is at least two heartbeats; a server that is silent for so long is `Unavailable`.
        """
        if not self._client.is_connected:
            raise Unavailable("not connected to NATS")
        self._pulls += 1
        reply = f"{self._inbox}.{self._pulls}"
        with _translated():
            if self._subscription is None:
                self._subscription = await self._client.subscribe(
                    f"{self._inbox}.*", cb=self._arrived.put
                )
            request = {
                "batch": count,
                "expires": round(wait_s * 1e9),
                "idle_heartbeat": round(PULL_HEARTBEAT_S * 1e9),
            }
            await self._client.publish(
                self._request_subject, json.dumps(request).encode(), reply=reply
            )
        while count > 0:
            message = await self._next()
            status = (message.headers or {}).get("Status")
            if status is None:
                count -= 1
                yield Delivery(message)
            elif message.subject == reply and status in {"404", "408"}:
                return
            elif message.subject == reply and status != "100":
                raise Unavailable(f"the pull has ended: {message.headers}")

    async def _next(self) -> Msg:
        try:
            return self._arrived.get_nowait()
        except asyncio.QueueEmpty:
            pass
        try:
            async with asyncio.timeout(2 * PULL_HEARTBEAT_S):
                return await self._arrived.get()
        except TimeoutError:
            raise Unavailable("the server has fallen silent") from None

    async def close(self) -> None:
        """Take no more. What was on its way is given back, so that nobody waits for `ack_wait`."""
        if self._subscription is None:
            return
        with _translated():
            await self._subscription.drain()  # type: ignore[no-untyped-call]
            while not self._arrived.empty():
                message = self._arrived.get_nowait()
                if "Status" not in (message.headers or {}):
                    await message.nak()


class Bucket:
    """A key-value bucket. Keys must be made of [A-Za-z0-9_=/-] and dots between tokens."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """The value and its revision; None when there is no such key."""
        try:
            with _translated():
                entry = await self._bucket.get(key)
        except Missing:
            return None
        return entry.value or b"", entry.revision or 0

    async def create(self, key: str, value: bytes) -> int:
        """Store a key that must not exist. Raises `Conflict` when it does."""
        with _translated():
            return await self._bucket.create(key, value)

    async def put(self, key: str, value: bytes) -> int:
        """Store a key, whether it exists or not."""
        with _translated():
            return await self._bucket.put(key, value)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        """Replace the value that had this revision. Raises `Conflict` when it has another."""
        with _translated():
            return await self._bucket.update(key, value, last=revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key; with `revision` only if it still has that one."""
        with _translated():
            await self._bucket.delete(key, last=revision)

    async def keys(self) -> list[str]:
        """All keys, sorted."""
        with _translated():
            try:
                return sorted(await self._bucket.keys())
            except nats.js.errors.NoKeysError:
                return []


class JetStream:
    """A connection to NATS that mends itself."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._client = Client()
        self._context: JetStreamContext | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._on_change: list[Callable[[bool], None]] = []

    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when the connection stands and with False when it is lost."""
        self._on_change.append(callback)

    @property
    def connected(self) -> bool:
        """True while the connection stands."""
        return self._client.is_connected

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The version that the connected server told; zeros while there is none."""
        if not self._client.is_connected:
            return 0, 0, 0
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    async def start(self, *, wait_s: float = 0.0) -> None:
        """Begin to connect; wait up to `wait_s` seconds for it. Not being connected is no error."""
        self._connecting = asyncio.create_task(self._connect(), name="nats-connect")
        if wait_s:
            await asyncio.wait({self._connecting}, timeout=wait_s)

    async def close(self) -> None:
        """Send what is buffered and close. Never raises."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.close()

    # --- publishing -----------------------------------------------------------------------------

    async def publish(
        self,
        message: Outgoing,
        *,
        expected_last_sequence: int | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> int:
        """Publish and wait for the acknowledgement. Returns the sequence number.

        With `expected_last_sequence` the last message on the subject must have this number
        (0: there must be none), otherwise `Conflict`.
        """
        headers = dict(message.headers)
        if expected_last_sequence is not None:
            headers[api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(expected_last_sequence)
        context = self._js()
        with REQUEST_SECONDS.labels("publish").time(), _translated():
            ack = await context.publish(
                message.subject, message.data, timeout=timeout_s, headers=headers or None
            )
        return ack.seq

    async def tell(self, message: Outgoing) -> None:
        """Publish without waiting for the acknowledgement: for what may be lost."""
        self._js()
        with _translated():
            await self._client.publish(
                message.subject, message.data, headers=dict(message.headers) or None
            )

    async def publish_batch(
        self, messages: Sequence[Outgoing], *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        """Publish all or none, in one stream (ADR-50). One message is a plain publish."""
        if len(messages) == 1:
            await self.publish(messages[0], timeout_s=timeout_s)
            return
        if not 1 < len(messages) <= MAX_BATCH:
            raise ValueError(f"a batch holds 1 to {MAX_BATCH} messages, not {len(messages)}")
        self._js()
        batch = secrets.token_hex(12)
        with REQUEST_SECONDS.labels("batch").time(), _translated():
            # The whole batch goes out without a pause: an abandoned one blocks a place for 10 s.
            for number, message in enumerate(messages[:-1], start=1):
                headers = {
                    **message.headers,
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(number),
                }
                await self._client.publish(message.subject, message.data, headers=headers)
            last = messages[-1]
            answer = await self._client.request(
                last.subject,
                last.data,
                timeout=timeout_s,
                headers={
                    **last.headers,
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(len(messages)),
                    "Nats-Batch-Commit": "1",
                },
            )
            reply = json.loads(answer.data or b"{}")
            if "error" in reply:
                raise nats.js.errors.APIError.from_error(reply["error"])
            if reply.get("count") != len(messages):
                raise Unavailable(f"the batch was acknowledged with {reply!r}")

    # --- reading --------------------------------------------------------------------------------

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message on a subject, or None. From the leader or any replica (direct get)."""
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message with this sequence number, or None."""
        request = json.dumps({"seq": sequence}).encode()
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}", request)

    async def page(
        self, stream: str, subject_filter: str, *, after_sequence: int, count: int
    ) -> list[Stored]:
        """Up to `count` messages that match the filter and have a higher sequence, in order."""
        self._js()
        inbox = self._client.new_inbox()
        request = {"seq": after_sequence + 1, "next_by_subj": subject_filter, "batch": count}
        found: list[Stored] = []
        with _translated():
            subscription = await self._client.subscribe(inbox, max_msgs=count + 1)
            try:
                await self._client.publish(
                    f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox
                )
                while len(found) < count:
                    message = await subscription.next_msg(timeout=REQUEST_TIMEOUT_S)
                    status = (message.headers or {}).get("Status")
                    if status in {"204", "404"}:
                        break
                    if status:
                        raise Refused(f"{stream}: {message.headers}")
                    found.append(_stored(message))
            finally:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()
        return found

    async def _direct_get(self, api_subject: str, request: bytes) -> Stored | None:
        self._js()
        with _translated():
            message = await self._client.request(api_subject, request, timeout=REQUEST_TIMEOUT_S)
        status = (message.headers or {}).get("Status")
        if status == "404":
            return None
        if status:
            raise Refused(f"{api_subject}: {message.headers}")
        return _stored(message)

    async def purge(self, stream: str, subject: str) -> int:
        """Remove every message on a subject. Returns how many there were."""
        answer = await self._request(f"$JS.API.STREAM.PURGE.{stream}", {"filter": subject})
        return int(answer.get("purged", 0))

    def consumer(self, stream: str, durable: str) -> Consumer:
        """A consumer that exists, or will by the time of the first pull."""
        return Consumer(self._client, stream, durable)

    async def follow(
        self, stream: str, subject_filter: str, *, since: datetime | None = None
    ) -> AsyncIterator[Stored]:
        """Messages as they come, in order, from a time on or from now on, until it is closed."""
        context = self._js()
        config = api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW)
        if since is not None:
            config = api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_TIME, opt_start_time=since
            )
        with _translated():
            subscription = await context.subscribe(
                subject_filter, stream=stream, ordered_consumer=True, config=config
            )
        try:
            while True:
                with _translated():
                    message = await subscription.next_msg(timeout=None)
                yield Stored(
                    message.subject,
                    message.metadata.sequence.stream,
                    message.data,
                    message.metadata.timestamp,
                    message.headers or {},
                )
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def bucket(self, name: str) -> Bucket:
        """Open a key-value bucket that exists."""
        context = self._js()
        with _translated():
            return Bucket(await context.key_value(name))

    # --- topology -------------------------------------------------------------------------------

    async def create_stream(self, config: Mapping[str, Any]) -> None:
        """Create a stream, configured as the server's own JSON has it."""
        await self._request(f"$JS.API.STREAM.CREATE.{config['name']}", config)

    async def create_consumer(self, stream: str, config: Mapping[str, Any]) -> None:
        """Create a durable consumer, configured as the server's own JSON has it."""
        request = {"stream_name": stream, "config": config, "action": "create"}
        name = config["durable_name"]
        await self._request(f"$JS.API.CONSUMER.CREATE.{stream}.{name}", request)

    async def stream_state(self, stream: str) -> StreamState | None:
        """What the server says of a stream; None when it does not exist."""
        try:
            answer = await self._request(f"$JS.API.STREAM.INFO.{stream}", {})
        except Missing:
            return None
        return StreamState(answer["config"], answer["state"]["messages"], answer["state"]["bytes"])

    async def consumer_state(self, stream: str, durable: str) -> ConsumerState | None:
        """What the server says of a consumer; None when it does not exist."""
        try:
            answer = await self._request(f"$JS.API.CONSUMER.INFO.{stream}.{durable}", {})
        except Missing:
            return None
        return ConsumerState(answer["config"], answer["num_pending"], answer["num_ack_pending"])

    async def storage_use(self) -> StorageUse:
        """How much file storage the account uses and may use, in octets."""
        answer = await self._request("$JS.API.INFO", {})
        limit = int(answer.get("limits", {}).get("max_storage", -1))
        return StorageUse(int(answer.get("storage", 0)), limit if limit > 0 else None)

    async def _request(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._js()
        with _translated():
            message = await self._client.request(
                subject, json.dumps(body).encode(), timeout=REQUEST_TIMEOUT_S
            )
            answer: dict[str, Any] = json.loads(message.data)
            if "error" in answer:
                raise nats.js.errors.APIError.from_error(answer["error"])
        return answer

    # --- connection -----------------------------------------------------------------------------

    def _js(self) -> JetStreamContext:
        if self._context is None or not self._client.is_connected:
            REQUEST_ERRORS.labels("unavailable").inc()
            raise Unavailable("not connected to NATS")
        return self._context

    async def _connect(self) -> None:
        settings = self._settings
        while True:
            try:
                await self._client.connect(
                    servers=list(settings.urls),
                    name=settings.client_name,
                    user=settings.username or None,
                    password=self._password if settings.password_file else None,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=5,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=0,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=_nothing,
                )
            except (nats.errors.Error, OSError, TimeoutError) as error:
                _log.warning("NATS is not reachable yet: %s: %s", type(error).__name__, error)
                await asyncio.sleep(1)
            else:
                break
        self._context = JetStreamContext(self._client, timeout=REQUEST_TIMEOUT_S)
        self._changed(connected=True)

    def _password(self) -> str:
        if self._settings.password_file is None:
            return ""
        return self._settings.password_file.read_text(encoding="utf-8").strip()

    async def _on_error(self, error: Exception) -> None:
        _log.warning("NATS: %s: %s", type(error).__name__, error)

    async def _on_disconnected(self) -> None:
        if not self._client.is_closed:
            _log.warning("the connection to NATS is lost")
        self._changed(connected=False)

    async def _on_reconnected(self) -> None:
        RECONNECTS.inc()
        _log.info("the connection to NATS stands again")
        self._changed(connected=True)

    def _changed(self, *, connected: bool) -> None:
        CONNECTED.set(int(connected))
        for callback in self._on_change:
            callback(connected)


async def _nothing() -> None:
    """nats-py wants a coroutine for each event, those that nobody needs included."""
