"""From the configuration to what every service shares: the store, the resolver, the tokens."""

from __future__ import annotations

import asyncio
from typing import Final

from services.common.app import Context, Stage
from services.common.config.model import Config
from services.common.dns import DnsOptions, DnsResolver
from services.common.jetstream import JetStream, NatsSettings
from services.common.readiness import Condition
from services.common.topology import TopologySettings, verify

VERIFY_INTERVAL_S: Final = 30.0
"""A topology that was safe is looked at again, in case somebody edits a stream by hand."""

VERIFY_RETRY_S: Final = 1.0


def nats_settings(config: Config, *, client_name: str) -> NatsSettings:
    """How to reach NATS, from `nats`."""
    nats = config.nats
    return NatsSettings(
        urls=nats.urls,
        client_name=client_name,
        username=nats.username,
        password_file=nats.password_file,
    )


def topology_settings(config: Config) -> TopologySettings:
    """The operator's part of the topology, from `nats`."""
    nats = config.nats
    return TopologySettings(
        replicas=nats.replicas,
        events_max_age_s=round(nats.events_max_age.total_seconds()),
        events_max_octets=nats.events_max_size,
    )


async def open_store(context: Context, config: Config) -> JetStream:
    """Connect to NATS in the background and close at the end.

    The process is ready once the topology was seen to be safe. A connection that is lost later does
    not make it unready: the ingress then answers 451 to its clients, which says more than a closed
    port does.
    """
    store = JetStream(nats_settings(config, client_name=f"gatepost-{context.process.service}"))
    condition = context.readiness.require("topology", reason="not connected to NATS yet")
    context.on_stop(Stage.CLOSE, "nats", store.close)
    await store.start()
    context.spawn("topology", _watch(store, topology_settings(config), condition))
    return store


async def _watch(store: JetStream, settings: TopologySettings, condition: Condition) -> None:
    while True:
        if store.connected:
            problems = await verify(store, settings)
            if store.connected and problems:
                condition.fail("; ".join(problems))
            elif store.connected:
                condition.meet()
        await asyncio.sleep(VERIFY_INTERVAL_S if condition.met else VERIFY_RETRY_S)


def open_resolver(config: Config) -> DnsResolver:
    """The resolver that `dns` describes."""
    dns = config.dns
    return DnsResolver(
        DnsOptions(
            servers=dns.servers,
            attempt_timeout=dns.attempt_timeout.total_seconds(),
            deadline=dns.timeout.total_seconds(),
        )
    )
