"""QueueService over gRPC, as operators call it, on top of a delivery service in the test's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gatepost.queue.v1.queue_pb2_grpc import (
    QueueServiceStub,
    add_QueueServiceServicer_to_server,
)
from services.common.readiness import Readiness
from services.common.rpc.auth import Access
from services.common.rpc.client import channel
from services.common.rpc.guard import Limits
from services.common.rpc.server import RpcServer
from services.common.rpc.tokens import TokenFile, Tokens, ensure_tokens
from services.delivery.queue_service import ACCESS, SERVICE
from tests.support.delivery import Delivery

if TYPE_CHECKING:
    # Made from the protos for type checkers alone.
    from gatepost.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

QueueStub: TypeAlias = "QueueServiceAsyncStub"


@asynccontextmanager
async def queue_server(
    delivery: Delivery, folder: Path, *, port: int = 0, limits: Limits | None = None
) -> AsyncIterator[int]:
    """The port where QueueService is asked; tokens are kept in `folder`."""
    ensure_tokens(folder)
    server = RpcServer(
        Access(Tokens(folder)),
        readiness=Readiness(),
        host="127.0.0.1",
        port=port,
        setting="test",
        limits=limits or Limits(),
    )
    server.add(add_QueueServiceServicer_to_server, delivery.service, service=SERVICE, table=ACCESS)
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


@asynccontextmanager
async def queue_calls(delivery: Delivery, folder: Path) -> AsyncIterator[QueueStub]:
    """The stub of an operator; tokens are kept in `folder`."""
    async with queue_server(delivery, folder) as port:
        opened = channel(f"127.0.0.1:{port}", token_source=TokenFile(folder / "operator.token"))
        try:
            yield QueueServiceStub(opened)
        finally:
            await opened.close()
