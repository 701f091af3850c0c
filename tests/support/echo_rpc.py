"""A small gRPC service that exists only in tests: `gatepost.test.v1.EchoService`.

Built from a descriptor at run time, so that no generated file is needed; `Echo` answers once,
`Count` answers with a stream. What they do is given by each test.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor

from services.common.readiness import Readiness
from services.common.rpc.auth import OPEN, Access, Role, Rule, methods
from services.common.rpc.guard import Limits
from services.common.rpc.server import RpcServer
from services.common.rpc.tokens import Tokens, ensure_tokens, token_file

SERVICE = "gatepost.test.v1.EchoService"
ECHO, COUNT = f"/{SERVICE}/Echo", f"/{SERVICE}/Count"

_Field = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="gatepost/test/v1/echo.proto", package="gatepost.test.v1", syntax="proto3"
    )
    message = file.message_type.add(name="EchoMessage")
    for number, (name, kind) in enumerate(
        {"text": _Field.TYPE_STRING, "dry_run": _Field.TYPE_BOOL}.items(), start=1
    ):
        message.field.add(
            name=name, json_name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL
        )
    service = file.service.add(name="EchoService")
    own = ".gatepost.test.v1.EchoMessage"
    service.method.add(name="Echo", input_type=own, output_type=own)
    service.method.add(name="Count", input_type=own, output_type=own, server_streaming=True)
    return file


# The default pool is the one that reflection answers from.
_pool = descriptor_pool.Default()
_pool.Add(_file())

DESCRIPTOR: ServiceDescriptor = _pool.FindServiceByName(SERVICE)
EchoMessage: Any = message_factory.GetMessageClass(
    _pool.FindMessageTypeByName("gatepost.test.v1.EchoMessage")
)


async def _same(request: Any, _: Any) -> Any:
    return request


async def _letters(request: Any, _: Any) -> AsyncGenerator[Any, None]:
    for letter in request.text:
        yield EchoMessage(text=letter)


class EchoServicer:
    """What the two methods do: by default `Echo` returns its request, `Count` its letters."""

    def __init__(
        self,
        *,
        echo: Callable[[Any, Any], Awaitable[Any]] = _same,
        count: Callable[[Any, Any], AsyncGenerator[Any, None]] = _letters,
    ) -> None:
        self.echo = echo
        self.count = count


def register(servicer: EchoServicer, server: grpc.aio.Server) -> None:
    """As a generated `add_…Servicer_to_server` does."""
    codec = (EchoMessage.FromString, EchoMessage.SerializeToString)
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(servicer.echo, *codec),
        "Count": grpc.unary_stream_rpc_method_handler(servicer.count, *codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class EchoStub:
    """As a generated stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        codec = (EchoMessage.SerializeToString, EchoMessage.FromString)
        self.Echo: Any = channel.unary_unary(ECHO, *codec)
        self.Count: Any = channel.unary_stream(COUNT, *codec)


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server."""

    server: RpcServer
    readiness: Readiness
    tokens: Path  # the directory of the token files

    @property
    def address(self) -> str:
        return f"{self.server.host}:{self.server.port}"

    def token(self, role: Role) -> str:
        return token_file(self.tokens, role).read_text().strip()


@asynccontextmanager
async def serving(
    directory: Path,
    servicer: EchoServicer | None = None,
    *,
    echo: Rule = OPEN,
    count: Rule = OPEN,
    limits: Limits | None = None,
    credentials: grpc.ServerCredentials | None = None,
    identities: Mapping[str, Role] | None = None,
    port: int = 0,
) -> AsyncIterator[Serving]:
    """The service on a free port of 127.0.0.1, with fresh tokens below `directory`."""
    tokens = directory / "tokens"
    ensure_tokens(tokens)
    readiness = Readiness()
    server = RpcServer(
        Access(Tokens(tokens), identities=identities),
        readiness=readiness,
        host="127.0.0.1",
        port=port,
        setting="echo.grpc.port",
        limits=limits or Limits(stop_grace=0.2),
        credentials=credentials,
    )
    table = methods(SERVICE, Echo=echo, Count=count)
    server.add(register, servicer or EchoServicer(), service=DESCRIPTOR, table=table)
    await server.start()
    try:
        yield Serving(server, readiness, tokens)
    finally:
        await server.stop()
