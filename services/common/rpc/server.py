"""A gRPC server as all services run it: guarded, reflected, with health, and with limits.

Life cycle: `RpcServer(...)`, `add(...)` for each service, `await start()`, `await stop()`.
`guard.py` says what happens around a call, `auth.py` who may call. A method that the protos define
and the table does not name, or the other way round, is an error at `add`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.readiness import Readiness
from services.common.rpc import health
from services.common.rpc.auth import OPEN, Access, MethodTable, methods
from services.common.rpc.guard import Guard, Limits
from services.common.rpc.status import ReflectionPool
from services.common.start import StartError, probe_port

MAX_METADATA_BYTES = 16 * 1024
# What a client may send before its request is read; one that is read gets as much as it needs.
STREAM_WINDOW_BYTES = 64 * 1024
# A client may ping as often as this; ours do every 30 s (client.py).
MIN_PING_INTERVAL_MS = 10_000
# We ping clients, to notice watchers that vanished without a word.
PING_INTERVAL_MS = 60_000
PING_TIMEOUT_MS = 10_000

REFLECTION_METHODS = methods(reflection.SERVICE_NAME, ServerReflectionInfo=OPEN)

S = TypeVar("S")


def _is_an_error(record: logging.LogRecord) -> bool:
    """All but a call that its client gave up before it began: the library calls that an error."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, asyncio.CancelledError)


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_an_error)


class RpcServer:
    """One gRPC port of a process."""

    def __init__(
        self,
        access: Access,
        *,
        readiness: Readiness,
        host: str,
        port: int,
        setting: str,
        limits: Limits | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """`setting` is the configuration key of the port; no `credentials` means plain text."""
        self.host = host
        self.port = port
        self._setting = setting
        self._readiness = readiness
        self._credentials = credentials
        self._limits = limits or Limits()
        self._access = access
        self._names: list[str] = []
        self.guard = Guard(access, self._limits)
        self._server = grpc.aio.server(
            interceptors=(self.guard,),
            options=_options(self._limits),
            # The guard's budgets answer first and are counted; this is the net below them.
            maximum_concurrent_rpcs=2 * self._limits.calls,
        )

    def add(
        self,
        register: Callable[[S, grpc.aio.Server], None],
        servicer: S,
        *,
        service: ServiceDescriptor,
        table: MethodTable,
    ) -> None:
        """Serve `servicer`: `register` is the generated `add_…Servicer_to_server`."""
        defined = {f"/{service.full_name}/{method.name}" for method in service.methods}
        if wrong := defined ^ table.keys():
            raise ValueError(f"methods without a rule, or unknown: {', '.join(sorted(wrong))}")
        self._access.allow(table)
        register(servicer, self._server)
        self._names.append(service.full_name)

    async def start(self) -> None:
        """Listen; a port of 0 becomes the one that was chosen. Raises `StartError`."""
        self._access.allow({**health.METHODS, **REFLECTION_METHODS})
        servicer = health.HealthServicer(self._readiness, self._names)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        names = (*self._names, health.HEALTH, reflection.SERVICE_NAME)
        pool: Any = ReflectionPool()  # as much of a pool as reflection needs
        reflection.enable_server_reflection(names, self._server, pool=pool)
        self._bind()
        await self._server.start()

    def _bind(self) -> None:
        probe_port(self._setting, host=self.host, port=self.port)
        address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise StartError(f"{self._setting}: cannot listen on {address}") from error

    async def stop(self) -> None:
        """Take no more calls, end streams, and wait `stop_grace` seconds for calls under way."""
        self.guard.end_streams()
        await self._server.stop(self._limits.stop_grace)


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        # A second process on the same port would get half of the calls instead of an error.
        ("grpc.so_reuseport", 0),
        ("grpc.max_connection_age_ms", round(limits.connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(limits.connection_age_grace * 1000)),
        ("grpc.max_receive_message_length", limits.max_receive_size),
        ("grpc.max_send_message_length", limits.max_send_size),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.connection_streams),
        # Probing would widen the windows of all streams to megabytes, also of those not read yet.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
        ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ]
