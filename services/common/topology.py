"""The streams, consumer and buckets that Gatepost keeps in JetStream.

`ensure` creates what is missing and bounds the events as it is set, from `gatepost topology ensure`
or `gatepost up`. A service never changes anything: it calls `verify` and is not ready while that
names a problem. What is set differently and endangers nothing is none, since in a rolling upgrade
services of two configurations run side by side; `departures` tells of it.

QUEUE has no limit of age, count or octets on purpose: message schedules exclude `discard: new`, and
`discard: old` with any limit would delete mail that was acknowledged. The server's own
`max_file_store` is the limit, and there a publish fails cleanly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.common.jetstream import JetStream, StoreError
from services.common.queue.subjects import (
    CONTENT_STREAM,
    DEAD_STREAM,
    DEFERRED_COUNTER,
    DELIVERY_CONSUMER,
    EVENTS_STREAM,
    HELD_COUNTER,
    QUEUE_STREAM,
    State,
)
from services.common.store import Unavailable

MIN_SERVER_VERSION: Final = (2, 14, 5)
"""The first nats-server whose message schedules can be relied on."""

ACK_WAIT_S: Final = 30
"""How long a worker may be silent about a message; it says `in_progress` at a third of that. What a
worker had in hand that was killed waits so long."""

MAX_ACK_PENDING: Final = 10_000
"""More than what all workers together hold at a time, at most 1,000 each; nothing waits in it."""

BUCKETS: Final = ("accounts", "suppressions", "destinations", "callouts", "logins", "mta_sts")

CALLOUTS_STREAM: Final = "KV_callouts"

CALLOUTS_MAX_AGE_S: Final = 7 * 24 * 3600
"""What a mail exchange said a week ago is forgotten: strangers choose how many there are."""

CALLOUTS_MAX_OCTETS: Final = 256 << 20
"""About a million keys. They must never take the room of mail, so what is beyond this is not
remembered, which greylisting and callouts can do without."""

CALLOUTS_SHARE: Final = 10
"""Of a small storage the callouts have one part in so many."""


TRY_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySettings:
    """What of the topology is for the operator to say."""

    replicas: int = 1
    events_max_age_s: int = 7 * 24 * 3600
    events_max_octets: int = 256 << 20


LOGINS_MAX_AGE_S: Final = 24 * 3600
"""Failed logins, by clients and names that strangers choose, count for a day."""

MTA_STS_MAX_AGE_S: Final = 31_557_600
"""The longest that a policy may say that it counts (RFC 8461 §3.2)."""

_BUCKET_MAX_AGES_S: Final = {
    "callouts": CALLOUTS_MAX_AGE_S,
    "logins": LOGINS_MAX_AGE_S,
    "mta_sts": MTA_STS_MAX_AGE_S,
}


def _nanoseconds(seconds: int) -> int:
    return seconds * 1_000_000_000


def streams(settings: TopologySettings) -> dict[str, dict[str, Any]]:
    """The streams and buckets by name, as the server's JSON has them."""
    common = {
        "storage": "file",
        "num_replicas": settings.replicas,
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "discard": "old",
        "allow_direct": True,
    }
    table: dict[str, dict[str, Any]] = {
        QUEUE_STREAM: {
            **common,
            "subjects": ["queue.*.*.*"],
            "retention": "workqueue",
            "allow_msg_schedules": True,
            "allow_atomic": True,
        },
        CONTENT_STREAM: {
            **common,
            "subjects": ["content.*.*"],
            "retention": "limits",
            "allow_atomic": True,
        },
        DEAD_STREAM: {**common, "subjects": ["dead.*"], "retention": "limits"},
        EVENTS_STREAM: {
            **common,
            "subjects": ["events.*.*"],
            "retention": "limits",
            "max_age": _nanoseconds(settings.events_max_age_s),
            "max_bytes": settings.events_max_octets or -1,
            # A lost event costs a line of a history, not a mail; asynchronous is ten times cheaper.
            **({"persist_mode": "async"} if settings.replicas == 1 else {}),
        },
    }
    for bucket in BUCKETS:
        max_age = _BUCKET_MAX_AGES_S.get(bucket, 0)
        table[f"KV_{bucket}"] = {
            **common,
            "subjects": [f"$KV.{bucket}.>"],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "max_age": _nanoseconds(max_age),
            "discard": "new",
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
    # How much it may hold depends on the server, and no mail depends on how much that is.
    del table[CALLOUTS_STREAM]["max_bytes"]
    return {name: {"name": name, **config} for name, config in table.items()}


def _consumer(name: str, state: State) -> dict[str, Any]:
    return {
        "durable_name": name,
        "filter_subject": f"queue.{state}.>",
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(ACK_WAIT_S),
        # Any other value strands mail: what was handed out too often is never handed out again.
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
    }


CONSUMERS: Final[Mapping[str, Mapping[str, Any]]] = {
    name: _consumer(name, state)
    for name, state in (
        (DELIVERY_CONSUMER, State.READY),
        # Nobody pulls from these two: what is pending in them is the number of records in a state,
        # told in a millisecond where listing a million subjects takes seconds.
        (DEFERRED_COUNTER, State.DEFERRED),
        (HELD_COUNTER, State.HELD),
    )
}


_FORMER: Final[Mapping[str, Sequence[int]]] = {
    "ack_wait": (_nanoseconds(60),),
    "max_ack_pending": (2000,),
    "max_bytes": (-1,),
}
"""What older releases made consumers and buckets with; other values are an operator's choice."""


async def ensure(store: JetStream, settings: TopologySettings, *, wait_s: float = 0.0) -> list[str]:
    """Create what is missing, bound the events as `settings` says, and give what an older release
    made the bounds that new ones have.

    Everything else is left as it is. While a cluster is still forming, or has no leader, it is
    tried again for `wait_s` seconds. Returns the names of what was created or changed. Raises
    `StoreError`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    created: list[str] = []
    while True:
        try:
            await _create(store, settings, created)
        except Unavailable:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(TRY_AGAIN_S)
        else:
            return created


async def _create(store: JetStream, settings: TopologySettings, created: list[str]) -> None:
    bounds = {CALLOUTS_STREAM: await _callouts_bound(store, settings)}
    for name, config in streams(settings).items():
        bound = bounds.get(name, {})
        state = await store.stream_state(name)
        if state is None:
            await store.create_stream({**config, **bound})
        elif fresh := _brought_up(state.config, bound) | _as_set(name, state.config, config):
            await store.update_stream({**state.config, **fresh})
        else:
            continue
        created.append(name)
    for name, consumer in CONSUMERS.items():
        found = await store.consumer_state(QUEUE_STREAM, name)
        if found is None:
            await store.create_consumer(QUEUE_STREAM, consumer)
        elif fresh := _brought_up(found.config, consumer):
            await store.update_consumer(QUEUE_STREAM, {**found.config, **fresh})
        else:
            continue
        created.append(f"{QUEUE_STREAM}/{name}")


async def _callouts_bound(store: JetStream, settings: TopologySettings) -> dict[str, int]:
    """The server promises this much room for each replica, so it must fit beside other bounds."""
    limit = (await store.storage_use()).limit
    share = CALLOUTS_MAX_OCTETS if limit is None else limit // settings.replicas // CALLOUTS_SHARE
    return {"max_bytes": min(share, CALLOUTS_MAX_OCTETS)}


def _brought_up(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that an older release made and that are others now."""
    return {key: value for key, value in wanted.items() if config.get(key) in _FORMER.get(key, ())}


def _as_set(name: str, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What of a stream is to follow the settings and does not yet."""
    fresh = {key: wanted[key] for key in _CHANGEABLE.get(name, ()) if _differs(key, wanted, config)}
    # It may not be longer than the age: the server chooses again.
    return {**fresh, "duplicate_window": 0} if fresh else {}


_CHANGEABLE: Final[Mapping[str, Sequence[str]]] = {EVENTS_STREAM: ("max_age", "max_bytes")}
"""What `ensure` changes in streams that exist: the permissions in the chart name them too."""

_AS_MADE: Final = ("num_replicas", "persist_mode")
"""What streams that exist keep: only an operator can tell whether the servers are there to copy
them to, and how long that may take."""


async def verify(store: JetStream, settings: TopologySettings) -> list[str]:
    """What is unsafe or missing, one line for each problem; empty when all is well."""
    if not store.connected:
        return ["NATS is not connected"]
    problems = _version_problems(store.server_version)
    try:
        for name, wanted in streams(settings).items():
            state = await store.stream_state(name)
            if state is None:
                problems.append(f"stream {name} is missing; run `gatepost topology ensure`")
                continue
            harmless = (*_AS_MADE, *_CHANGEABLE.get(name, ()))
            needed = {key: value for key, value in wanted.items() if key not in harmless}
            problems += _differences(f"stream {name}", needed, state.config)
        for name, expected in CONSUMERS.items():
            consumer = await store.consumer_state(QUEUE_STREAM, name)
            if consumer is None:
                problems.append(f"consumer {name} is missing; run `gatepost topology ensure`")
            else:
                problems += _differences(f"consumer {name}", expected, consumer.config)
        if (await store.storage_use()).limit is None:
            problems.append("the NATS account has no storage limit; set max_file_store")
    except StoreError as error:
        problems.append(f"NATS does not answer: {error}")
    return problems


async def departures(store: JetStream, settings: TopologySettings) -> list[str]:
    """What is not as it is set and endangers nothing, one line each. Raises `StoreError`."""
    as_made, lines = [], []
    for name, wanted in streams(settings).items():
        state = await store.stream_state(name)
        if state is None:
            continue
        if _differs("num_replicas", wanted, state.config):
            as_made.append(f"{name} has {state.config.get('num_replicas')}")
        lines += [
            f"stream {name}: {key} is {state.config.get(key)!r}, {wanted[key]!r} is set;"
            " run `gatepost topology ensure`"
            for key in _CHANGEABLE.get(name, ())
            if _differs(key, wanted, state.config)
        ]
    if as_made:
        copies = ", ".join(as_made)
        lines.append(f"nats.replicas is {settings.replicas}, and streams stay as made: {copies}")
    return lines


def _differs(key: str, wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    """The server leaves out what is zero or false."""
    found, value = actual.get(key), wanted[key]
    return bool(found != value and (found is not None or value))


def _version_problems(version: tuple[int, int, int]) -> list[str]:
    if version >= MIN_SERVER_VERSION:
        return []
    wanted, found = (".".join(map(str, numbers)) for numbers in (MIN_SERVER_VERSION, version))
    return [f"nats-server {wanted} or newer is needed, this is {found}"]


def _differences(what: str, wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Where a configuration is not what it must be."""
    problems = []
    for key, value in wanted.items():
        found = actual.get(key)
        if key in _AT_LEAST:
            if not isinstance(found, int) or found < value:
                problems.append(f"{what}: {key} is {found!r}, it must be at least {value!r}")
            continue
        if key in _TUNABLE or not _differs(key, wanted, actual):
            continue
        problems.append(f"{what}: {key} is {found!r}, it must be {value!r}")
    return problems


_TUNABLE: Final = frozenset({"max_ack_pending"})
"""An operator may tune these by hand without endangering mail."""

_AT_LEAST: Final = frozenset({"ack_wait"})
"""These may be longer: with less, mail that is being delivered would be handed out again."""
