"""The one package that knows nats-py: JetStream as the rest of Gatepost uses it.

Guarantees
- A call either returns after the server acknowledged, or raises a `StoreError`. Nothing of nats-py
  leaks out of here, neither types nor exceptions.
- A publish that failed while the connection was away is never sent later: nothing is buffered
  (`pending_size=0`), so a client that was told 451 is not surprised by a second copy.
- The connection is made and remade for ever, in the background. Until it stands every call raises
  `Unavailable` at once.

`store.JetStream` has the calls, on top of `connection`; `consumer` and `bucket` are what it opens;
`translation` turns nats-py's exceptions into ours.

Life cycle: `JetStream(settings)` → `start()` (returns at once) → calls → `close()`.
"""

from services.common.jetstream.bucket import Bucket
from services.common.jetstream.consumer import PULL_HEARTBEAT_S, Consumer, Delivery
from services.common.jetstream.store import EXPECTED_ON_SUBJECT, MAX_BATCH, JetStream
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
    TooLarge,
    Unavailable,
)

__all__ = [
    "EXPECTED_ON_SUBJECT",
    "MAX_BATCH",
    "PULL_HEARTBEAT_S",
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
    "TooLarge",
    "Unavailable",
]
