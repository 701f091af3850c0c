"""From the configuration to what every service shares: the store, the resolver, the tokens."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

import grpc.aio

from services.common.app import Context, Process, Stage
from services.common.config.model import Config
from services.common.config.system import HttpService, Nats, RpcService, RpcTls
from services.common.dns import DnsOptions, DnsResolver
from services.common.jetstream import JetStream, NatsSettings
from services.common.log import WARNING, LogFormat, event
from services.common.readiness import Condition
from services.common.rpc.auth import Access, Role
from services.common.rpc.client import ClientTls, channel
from services.common.rpc.credentials import server_credentials
from services.common.rpc.guard import Limits
from services.common.rpc.server import RpcServer
from services.common.rpc.tokens import TokenFile, Tokens, token_file
from services.common.store import NatsTls, StoreError
from services.common.tls import CertificateFiles
from services.common.topology import TopologySettings, departures, verify
from services.common.turns import Turns

_log = logging.getLogger(__name__)

VERIFY_INTERVAL_S: Final = 30.0
"""A topology that was safe is looked at again, in case somebody edits a stream by hand."""

VERIFY_RETRY_S: Final = 1.0

CONNECT_WAIT_S: Final = 2.0
"""A start waits so long for NATS, so that one in order is without complaints about its absence."""


def process(config: Config, service: str) -> Process:
    """What the process skeleton has to know to run a service."""
    section: HttpService = getattr(config.services, service)
    return Process(
        service=service,
        http_host=section.http.host,
        http_port=section.http.port,
        http_setting=f"services.{service}.http",
        log_level=config.log.level,
        log_format=LogFormat(config.log.format),
        grace=config.services.grace_period.total_seconds(),
    )


def nats_settings(config: Config, *, client_name: str) -> NatsSettings:
    """How to reach NATS, from `nats`."""
    nats = config.nats
    return NatsSettings(
        urls=nats.urls,
        client_name=client_name,
        username=nats.username,
        password_file=nats.password_file,
        tls=_nats_tls(nats),
    )


def _nats_tls(nats: Nats) -> NatsTls | None:
    if not nats.encrypted:
        return None
    tls = nats.tls
    return NatsTls(authorities=tls.ca_file, certificate=tls.certificate_file, key=tls.key_file)


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
    await store.start(wait_s=CONNECT_WAIT_S)
    context.spawn("topology", _watch(store, topology_settings(config), condition))
    return store


async def _watch(store: JetStream, settings: TopologySettings, condition: Condition) -> None:
    told = False
    while True:
        if store.connected:
            problems = await verify(store, settings)
            if store.connected and problems:
                condition.fail("; ".join(problems))
            elif store.connected:
                condition.meet()
                told = told or await _told_departures(store, settings)
        await asyncio.sleep(VERIFY_INTERVAL_S if condition.met else VERIFY_RETRY_S)


async def _told_departures(store: JetStream, settings: TopologySettings) -> bool:
    """Log what is set differently; False when NATS does not say."""
    try:
        lines = await departures(store, settings)
    except StoreError:
        return False
    for line in lines:
        event(_log, WARNING, "the topology is not as it is set", reason=line)
    return True


def open_resolver(
    config: Config,
    *,
    max_concurrent: int = 256,
    stretches: bool = True,
    turns: Turns | None = None,
) -> DnsResolver:
    """The resolver that `dns` describes, with so many questions under way at a time.

    It takes `turns` with whatever else takes some.
    Without `stretches` nothing is kept longer than its TTL, and failures as briefly as allowed.
    """
    dns = config.dns
    options = DnsOptions(
        servers=dns.servers,
        attempt_timeout=dns.attempt_timeout.total_seconds(),
        deadline=dns.timeout.total_seconds(),
        max_concurrent=max_concurrent,
    )
    if not stretches:
        # RFC 9520 §3.2: a failure is kept for a second at least.
        options = replace(options, min_ttl=0.0, temporary_ttl=1.0)
    return DnsResolver(options, turns=turns)


def open_rpc_server(context: Context, config: Config, *, limits: Limits | None = None) -> RpcServer:
    """The service's gRPC server: add services to it, then `start()`. It is stopped at the end.

    Raises `StartError` if its certificate cannot be used.
    """
    service = context.process.service
    section: RpcService = getattr(config.services, service)
    server = RpcServer(
        Access(Tokens(config.auth.tokens_directory)),
        readiness=context.readiness,
        host=section.grpc.host,
        port=section.grpc.port,
        setting=f"services.{service}.grpc",
        limits=limits,
        credentials=_server_credentials(config.services.tls),
    )
    context.on_stop(Stage.RPC, "grpc", server.stop)
    return server


def _server_credentials(tls: RpcTls) -> grpc.ServerCredentials | None:
    if tls.certificate_file is None or tls.key_file is None:
        return None
    return server_credentials(CertificateFiles(tls.certificate_file, tls.key_file))


def open_channel(context: Context, config: Config, target: RpcService) -> grpc.aio.Channel:
    """A channel to another service, with the token of the role `service`. Closed at the end."""
    token = TokenFile(token_file(config.auth.tokens_directory, Role.SERVICE))
    tls = config.services.tls
    client_tls = ClientTls(authorities=tls.ca_file) if tls.enabled else None
    opened = channel(target.reached_at, token_source=token, tls=client_tls)
    context.on_stop(Stage.CLOSE, f"channel to {target.reached_at}", opened.close)
    return opened
