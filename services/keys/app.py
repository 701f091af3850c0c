"""The process `gatepost keys`: its parts, put together and started. The only place that does."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from gatepost.keys.v1.keys_pb2_grpc import add_KeyServiceServicer_to_server
from services.common import app
from services.common.app import Context, Process, Stage
from services.common.config.model import Config
from services.common.config.source import ConfigSource
from services.common.dns import ZoneServers
from services.common.log import LogFormat
from services.common.readiness import Condition
from services.common.rpc.auth import Access
from services.common.rpc.server import RpcServer
from services.common.rpc.tokens import Tokens
from services.common.wiring import open_resolver
from services.keys.create import KeyMaker
from services.keys.file_store import FileStore
from services.keys.key_service import ACCESS, SERVICE, KeyService
from services.keys.keyring import Keyring
from services.keys.lifecycle import Lifecycle
from services.keys.sign_message import MessageSigner
from services.keys.store import KeyStore


def run(source: ConfigSource) -> int:
    """Run the service until it is told to stop; the exit code."""
    config = source.current
    process = Process(
        service="keys",
        http_host=config.services.keys.http.host,
        http_port=config.services.keys.http.port,
        http_setting="services.keys.http",
        log_level=config.log.level,
        log_format=LogFormat(config.log.format),
        grace=config.services.grace_period.total_seconds(),
    )
    return app.run(process, partial(_start, source=source))


async def _start(context: Context, *, source: ConfigSource) -> None:
    config = source.current
    loaded = context.readiness.require("keys", reason="the keys were not read yet")
    keyring = Keyring()
    store = _open_store(config)
    context.on_stop(Stage.CLOSE, "key store", store.close)
    await store.open()
    resolver = open_resolver(config)
    context.on_stop(Stage.CLOSE, "resolver", resolver.close)
    authority = ZoneServers(resolver, servers=config.keys.publication_servers)
    maker = KeyMaker(store, keyring, _now)
    signer = MessageSigner(keyring, _now)
    lifecycle = Lifecycle(store, keyring, authority, _now)
    await _serve(context, config, KeyService(keyring, maker, lifecycle, signer, _now))
    context.spawn("config", source.follow())
    context.spawn("key store", store.follow(keyring.take))
    context.spawn("keys loaded", _report_loaded(keyring, loaded, context))


def _open_store(config: Config) -> KeyStore:
    return FileStore(config.keys.directory)


async def _serve(context: Context, config: Config, service: KeyService) -> None:
    server = RpcServer(
        Access(Tokens(config.auth.tokens_directory)),
        readiness=context.readiness,
        host=config.services.keys.grpc.host,
        port=config.services.keys.grpc.port,
        setting="services.keys.grpc",
    )
    server.add(add_KeyServiceServicer_to_server, service, service=SERVICE, table=ACCESS)
    context.on_stop(Stage.RPC, "grpc", server.stop)
    await server.start()


async def _report_loaded(keyring: Keyring, loaded: Condition, context: Context) -> None:
    await keyring.wait_loaded()
    loaded.meet()
    await context.stopping.wait()


def _now() -> datetime:
    return datetime.now(UTC)
