"""The process `gatepost delivery`: its parts, put together and started here and nowhere else."""

from __future__ import annotations

import os
import secrets
import socket
import time
from functools import partial
from typing import Final

from gatepost.keys.v1.keys_pb2_grpc import KeyServiceStub
from gatepost.queue.v1.queue_pb2_grpc import add_QueueServiceServicer_to_server
from services.common import app
from services.common.app import Context, Process, Stage
from services.common.config.model import Config
from services.common.config.source import ConfigSource
from services.common.dns import Resolver
from services.common.jetstream import JetStream
from services.common.log import LogFormat
from services.common.rpc.guard import Limits
from services.common.wiring import open_channel, open_resolver, open_rpc_server, open_store
from services.delivery import queue_gauges
from services.delivery.another_chance import AnotherChance
from services.delivery.attempt import Attempts
from services.delivery.destinations import Destinations
from services.delivery.events import Events
from services.delivery.intake import Intake
from services.delivery.ledger import Ledger
from services.delivery.local import LocalDelivery
from services.delivery.mx_places import MxPlaces
from services.delivery.notifier import Notifier
from services.delivery.operations import Operations
from services.delivery.queue_service import ACCESS, SERVICE, QueueService
from services.delivery.remote import RemoteDelivery
from services.delivery.server_clock import ServerClock
from services.delivery.signing import Signer
from services.delivery.slots import Slots
from services.delivery.smtp.tls_context import authenticating
from services.delivery.suppressions import Suppressions
from services.delivery.sweeper import Sweeper
from services.delivery.tls.https import Https
from services.delivery.tls.reporter import TlsReporter
from services.delivery.tls.sts import MtaSts
from services.delivery.tls.sts_fetch import PolicyHosts
from services.delivery.tls.sts_store import StsStore
from services.delivery.worker import Worker

LIMITS: Final = Limits(max_receive_size=256 * 1024, connection_streams=256)
"""Requests are names and numbers, and the reason of a suppression."""


def run(source: ConfigSource) -> int:
    """Run the service until it is told to stop; the exit code."""
    config = source.current
    process = Process(
        service="delivery",
        http_host=config.services.delivery.http.host,
        http_port=config.services.delivery.http.port,
        http_setting="services.delivery.http",
        log_level=config.log.level,
        log_format=LogFormat(config.log.format),
        grace=config.services.grace_period.total_seconds(),
    )
    return app.run(process, partial(_start, source=source))


async def _start(context: Context, *, source: ConfigSource) -> None:
    config = source.current
    store = await open_store(context, config)
    clock = ServerClock()
    resolver = open_resolver(config)
    context.on_stop(Stage.CLOSE, "resolver", resolver.close)
    https = Https(
        resolver,
        allowed=lambda: source.current.delivery.allowed_networks,
        context=lambda: authenticating(source.current.delivery.extra_ca_file),
    )
    reporter = TlsReporter(store, source, resolver, https, now=clock.now)
    events = Events(store)
    ledger = Ledger(store)
    notifier = Notifier(store, ledger, events, source)
    slots = Slots(lambda: source.current.delivery, time.monotonic)
    destinations = Destinations(
        store, clock.now, on_failing=slots.leave_alone, on_mended=slots.try_again
    )
    slots.on_left_alone = destinations.tell_failing
    suppressions = Suppressions(store, source, clock.now)
    worker = Worker(
        store,
        source,
        attempts=_attempts(context, source, store, resolver, https, reporter, clock),
        slots=slots,
        ledger=ledger,
        notifier=notifier,
        events=events,
        destinations=destinations,
        suppressions=suppressions,
        now=clock.now,
    )
    intake = Intake(
        store,
        worker.handle,
        room=lambda: source.current.delivery.concurrency.total + ledger.leaving,
    )
    ledger.on_leaving = intake.look_again
    context.on_stop(Stage.DRAIN, "records in hand", intake.drain)
    context.on_stop(Stage.DRAIN, "reports on encryption", reporter.close)
    operations = Operations(
        store,
        notifier,
        clock.now,
        on_retry=AnotherChance(source, destinations).give,
    )
    service = QueueService(store, operations, destinations, events, suppressions, clock.now)
    context.on_stop(Stage.CLOSE, "operators' changes", service.finish)
    await _serve(context, config, service)
    context.spawn("config", source.follow())
    context.spawn("destinations", destinations.follow())
    context.spawn("reports on encryption", reporter.follow())
    context.spawn("intake", _take_in(intake, clock))
    context.spawn("sweeper", Sweeper(store, suppressions, owner=_own_name()).run())
    context.spawn("queue gauges", queue_gauges.follow(store))
    context.spawn("server clock", clock.follow(store))


async def _take_in(intake: Intake, clock: ServerClock) -> None:
    """Handle no mail before we know how old it is: a wrong clock must not give it up."""
    await clock.known.wait()
    await intake.run()


def _attempts(
    context: Context,
    source: ConfigSource,
    store: JetStream,
    resolver: Resolver,
    https: Https,
    reporter: TlsReporter,
    clock: ServerClock,
) -> Attempts:
    config = source.current
    policies = StsStore(store, now=clock.now, clock=time.monotonic)
    sts = MtaSts(resolver, PolicyHosts(https), policies, now=clock.now)
    context.on_stop(Stage.CLOSE, "policies", sts.close)
    exchanges = MxPlaces(source, resolver, sts, validating=config.dns.validating)
    remote = RemoteDelivery(source, resolver, exchanges, on_tls=reporter.add)
    context.on_stop(Stage.CLOSE, "sessions", remote.close)
    local = LocalDelivery(source)
    context.on_stop(Stage.CLOSE, "mailboxes", local.close)
    channel = open_channel(context, config, config.services.keys)
    return Attempts(source, local=local, remote=remote, signer=Signer(KeyServiceStub(channel)))


async def _serve(context: Context, config: Config, service: QueueService) -> None:
    server = open_rpc_server(context, config, limits=LIMITS)
    server.add(add_QueueServiceServicer_to_server, service, service=SERVICE, table=ACCESS)
    await server.start()


def _own_name() -> str:
    """This process among all that there ever are."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
