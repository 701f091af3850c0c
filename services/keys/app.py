"""The process `gatepost keys`: its parts, put together and started. The only place that does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from prometheus_client import REGISTRY

from gatepost.keys.v1.keys_pb2_grpc import add_KeyServiceServicer_to_server
from services.common import app
from services.common.app import Context, Stage
from services.common.config.keys import KeyStoreKind
from services.common.config.model import Config
from services.common.config.source import ConfigSource
from services.common.dns import DnsOptions, DnsResolver, ZoneServers
from services.common.mail.message import MAX_HEADER_OCTETS
from services.common.readiness import Condition
from services.common.rpc.guard import Limits
from services.common.wiring import open_rpc_server, process
from services.keys.create import KeyMaker
from services.keys.dns_advice import DnsAdviser
from services.keys.domain_status import DomainSigning, domain_statuses
from services.keys.file_store import FileStore
from services.keys.key_service import ACCESS, SERVICE, KeyService
from services.keys.keyring import Keyring
from services.keys.lifecycle import Lifecycle
from services.keys.measure import KeyMetrics
from services.keys.sign_message import MessageSigner
from services.keys.store import KeyStore
from services.keys.upkeep import Upkeep

LIMITS: Final = Limits(max_receive_size=MAX_HEADER_OCTETS + 16 * 1024, connection_streams=256)
"""The largest request is a header to sign, and the rest of it is short. Delivery may ask for many
signatures at once; what is above the streams waits in its process."""

_LONGEST_QUEUE_AGE: Final = timedelta(days=365)
"""Whoever lets mail wait for longer does not mean it."""


def run(source: ConfigSource) -> int:
    """Run the service until it is told to stop; the exit code."""
    return app.run(process(source.current, "keys"), partial(_start, source=source))


async def _start(context: Context, *, source: ConfigSource) -> None:
    config = source.current
    loaded = context.readiness.require("keys", reason="the keys were not read yet")
    keyring = Keyring()
    store = _store(config)
    context.on_stop(Stage.CLOSE, "key store", store.close)
    await store.open()
    resolver = _open_resolver(config)
    context.on_stop(Stage.CLOSE, "resolver", resolver.close)
    authority = ZoneServers(resolver, servers=config.keys.publication_servers)
    maker = KeyMaker(store, keyring, _now)
    signer = MessageSigner(keyring, _now, lambda: source.current.keys.signature_lifetime)
    context.on_stop(Stage.CLOSE, "key generation", maker.close)
    context.on_stop(Stage.CLOSE, "signing", signer.close)
    lifecycle = Lifecycle(store, keyring, authority, _now)
    adviser = DnsAdviser(keyring, resolver, lambda: source.current, _now)
    REGISTRY.register(
        KeyMetrics(
            keyring, lifecycle.visible, now=_now, unsigned=lambda: _unsigned(keyring, source)
        )
    )
    server = open_rpc_server(context, config, limits=LIMITS)
    server.add(
        add_KeyServiceServicer_to_server,
        KeyService(
            keyring, maker, lifecycle, signer, adviser, config=lambda: source.current, now=_now
        ),
        service=SERVICE,
        table=ACCESS,
    )
    await server.start()
    context.spawn("config", source.follow())
    context.spawn("key store", store.follow(keyring.take))
    upkeep = Upkeep(keyring, maker, lifecycle, _now)
    context.spawn("upkeep", upkeep.run(lambda: _interval(source), lambda: _queue_age(source)))
    context.spawn("keys loaded", _report_loaded(keyring, loaded, context))


def _store(config: Config) -> KeyStore:
    if config.keys.store is KeyStoreKind.FILE:
        return FileStore(config.keys.directory)
    # Imported where it is needed: the client takes 70 MB.
    from services.keys.kubernetes_store import KubernetesStore

    return KubernetesStore(config.keys.namespace)


def _open_resolver(config: Config) -> DnsResolver:
    """Without a cache: whoever has just published a record asks whether it is there."""
    dns = config.dns
    return DnsResolver(
        DnsOptions(
            servers=dns.servers,
            attempt_timeout=dns.attempt_timeout.total_seconds(),
            deadline=dns.timeout.total_seconds(),
            cache_entries=0,
        )
    )


async def _report_loaded(keyring: Keyring, loaded: Condition, context: Context) -> None:
    while not keyring.loaded:
        if keyring.lost:
            loaded.fail(keyring.lost)
        await keyring.changed()
    loaded.meet()
    await context.stopping.wait()


def _unsigned(keyring: Keyring, source: ConfigSource) -> int:
    """How many local domains' mail goes out unsigned although signing is on."""
    config = source.current
    if not config.delivery.dkim.enabled:
        return 0
    local = frozenset(config.domains.local)
    statuses = domain_statuses(keyring, local)
    return sum(each.local and each.signing is DomainSigning.UNSIGNED for each in statuses)


def _interval(source: ConfigSource) -> timedelta:
    return source.current.keys.check_interval


def _queue_age(source: ConfigSource) -> timedelta:
    """How old mail in the queue can become, from `delivery.retry`; rather too much than too
    little."""
    retry = source.current.delivery.retry
    longest = min((retry.max_retries + 1) * retry.interval, _LONGEST_QUEUE_AGE)
    return min(longest, retry.max_age + retry.interval) if retry.max_age else longest


def _now() -> datetime:
    return datetime.now(UTC)
