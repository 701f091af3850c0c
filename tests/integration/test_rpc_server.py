"""The gRPC server as its callers meet it, over a real socket."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from services.common.readiness import Readiness
from services.common.rpc.auth import OPEN, VIEW, Access, Role, methods
from services.common.rpc.errors import not_found, reason_of
from services.common.rpc.guard import Limits
from services.common.rpc.server import RpcServer
from services.common.rpc.tokens import Tokens
from services.common.start import StartError
from tests.support.echo_rpc import (
    DESCRIPTOR,
    SERVICE,
    EchoMessage,
    EchoServicer,
    EchoStub,
    register,
    serving,
)


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks do; the test's own deadline ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


async def test_call_and_stream_answer(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = EchoStub(channel)
        assert (await stub.Echo(EchoMessage(text="hello"))).text == "hello"
        letters = [answer.text async for answer in stub.Count(EchoMessage(text="abc"))]
        assert letters == ["a", "b", "c"]


async def test_domain_error_has_code_text_and_reason(tmp_path: Path) -> None:
    async def echo(request: Any, context: Any) -> Any:
        raise not_found("no key for example.test", reason="KEY_UNKNOWN")

    async with (
        serving(tmp_path, EchoServicer(echo=echo)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        error = await failure_of(EchoStub(channel).Echo(EchoMessage()))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no key for example.test"
    assert reason_of(error) == "KEY_UNKNOWN"


async def test_unexpected_error_tells_the_log_and_not_the_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(request: Any, context: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    before = metric("gatepost_rpc_requests_total", method=f"{SERVICE}/Echo", code="INTERNAL")
    async with (
        serving(tmp_path, EchoServicer(echo=echo)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        error = await failure_of(EchoStub(channel).Echo(EchoMessage()))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    [line] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert line.exc_info is not None
    assert "hunter2" in str(line.exc_info[1])
    after = metric("gatepost_rpc_requests_total", method=f"{SERVICE}/Echo", code="INTERNAL")
    assert after == before + 1


async def test_error_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    async def count(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        yield EchoMessage(text="first")
        raise not_found("gone", reason="GONE")

    async with (
        serving(tmp_path, EchoServicer(count=count)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        call = EchoStub(channel).Count(EchoMessage())
        assert (await call.read()).text == "first"
        error = await failure_of(call.read())
    assert reason_of(error) == "GONE"


async def test_method_that_is_not_written_yet_is_unimplemented(tmp_path: Path) -> None:
    def echo(request: Any, context: Any) -> Any:  # as generated base classes do
        raise NotImplementedError("Method not implemented!")

    async with (
        serving(tmp_path, EchoServicer(echo=echo, count=echo)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = EchoStub(channel)
        error = await failure_of(stub.Echo(EchoMessage()))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        error = await failure_of(stub.Count(EchoMessage()).read())
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_unknown_method_is_counted_under_one_name(tmp_path: Path) -> None:
    before = metric("gatepost_rpc_requests_total", method="unknown", code="UNIMPLEMENTED")
    async with (
        serving(tmp_path) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        error = await failure_of(channel.unary_unary(f"/{SERVICE}/Nonsense")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    after = metric("gatepost_rpc_requests_total", method="unknown", code="UNIMPLEMENTED")
    assert after == before + 1


@pytest.mark.parametrize(
    ("client", "longest", "reason"),
    [
        (None, 0.2, "SERVER_DEADLINE"),  # none given: the default
        (3600.0, 0.2, "SERVER_DEADLINE"),  # longer than allowed
        # The client's own, which ends the call on both sides; time enough to get there.
        (6.0, 60.0, ""),
    ],
)
async def test_every_call_has_a_deadline(
    tmp_path: Path, client: float | None, longest: float, reason: str
) -> None:
    ended = asyncio.Event()

    async def echo(request: Any, context: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    # The client's deadline begins where the server hears of it, on a busy machine some time later.
    codes = ["DEADLINE_EXCEEDED", *([] if reason else ["CANCELLED"])]
    limits = Limits(default_deadline=0.1, max_deadline=longest, stop_grace=0.2)
    async with (
        serving(tmp_path, EchoServicer(echo=echo), limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        await channel.channel_ready()
        before = ended_calls(*codes)
        error = await failure_of(EchoStub(channel).Echo(EchoMessage(), timeout=client))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason_of(error) == reason
        await ended.wait()  # the method does not run on for nobody
        await until(lambda: ended_calls(*codes) == before + 1)


def ended_calls(*codes: str) -> float:
    """How many calls of Echo ended with one of these codes."""
    method = f"{SERVICE}/Echo"
    return sum(metric("gatepost_rpc_requests_total", method=method, code=code) for code in codes)


async def test_full_budget_is_refused_at_once_and_freed(tmp_path: Path) -> None:
    release, running_calls = asyncio.Event(), []

    async def echo(request: Any, context: Any) -> Any:
        running_calls.append(request)
        await release.wait()
        return request

    limits = Limits(open_unary=2, stop_grace=0.2)
    async with (
        serving(tmp_path, EchoServicer(echo=echo), limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = EchoStub(channel)
        held = [asyncio.ensure_future(stub.Echo(EchoMessage(text="x"))) for _ in range(2)]
        await until(lambda: len(running_calls) == 2)
        assert metric("gatepost_rpc_in_progress", budget="open_unary") == 2
        error = await failure_of(stub.Echo(EchoMessage()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "SERVER_BUSY"
        release.set()
        await asyncio.gather(*held)
        assert (await stub.Echo(EchoMessage(text="again"))).text == "again"
        assert metric("gatepost_rpc_in_progress", budget="open_unary") == 0


async def test_strangers_cannot_take_the_places_of_those_with_a_token(tmp_path: Path) -> None:
    async def count(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        yield request
        await asyncio.Event().wait()

    limits = Limits(open_streams=1, streams=1, stop_grace=0.2)
    async with (
        serving(tmp_path, EchoServicer(count=count), count=VIEW, limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        error = await failure_of(health.Watch(health_pb2.HealthCheckRequest()).read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        metadata = (("authorization", f"Bearer {running.token(Role.VIEWER)}"),)
        stream = EchoStub(channel).Count(EchoMessage(text="x"), metadata=metadata)
        assert (await stream.read()).text == "x"


async def test_stream_without_a_token_ends_after_its_time(tmp_path: Path) -> None:
    # The first answer comes within it, whatever else the machine does.
    limits = Limits(open_stream_deadline=6, stop_grace=0.2)
    async with (
        serving(tmp_path, limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        error = await failure_of(watch.read())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_stop_lets_calls_finish_and_ends_streams(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def echo(request: Any, context: Any) -> Any:
        entered.set()
        await asyncio.sleep(0.1)
        return request

    async def count(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        yield request
        await asyncio.Event().wait()

    servicer = EchoServicer(echo=echo, count=count)
    async with (
        serving(tmp_path, servicer, limits=Limits(stop_grace=50.0)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = EchoStub(channel)
        stream = stub.Count(EchoMessage(text="x"))
        await stream.read()
        call = asyncio.ensure_future(stub.Echo(EchoMessage(text="in hand")))
        await entered.wait()
        async with asyncio.timeout(25.0):  # well within the grace period
            await running.server.stop()
        assert (await call).text == "in hand"
        error = await failure_of(stream.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(error) == "SHUTTING_DOWN"


async def test_health_follows_readiness(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        serving_, not_serving = 1, 2
        assert (await watch.read()).status == serving_
        queue = running.readiness.require("queue", reason="no connection")
        assert (await watch.read()).status == not_serving
        queue.meet()
        assert (await watch.read()).status == serving_
        running.readiness.stop()
        assert (await watch.read()).status == not_serving
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == not_serving
        error = await failure_of(health.Check(health_pb2.HealthCheckRequest(service="other")))
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_large_request_is_refused(tmp_path: Path) -> None:
    limits = Limits(max_receive_size=1000, stop_grace=0.2)
    async with (
        serving(tmp_path, limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        error = await failure_of(EchoStub(channel).Echo(EchoMessage(text="x" * 2000)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_old_connections_are_closed_without_harm(tmp_path: Path) -> None:
    peers = set()

    async def echo(request: Any, context: Any) -> Any:
        peers.add(context.peer())
        return request

    limits = Limits(connection_age=0.2, connection_age_grace=1.0, stop_grace=0.2)
    async with (
        serving(tmp_path, EchoServicer(echo=echo), limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = EchoStub(channel)
        while len(peers) < 2:
            assert (await stub.Echo(EchoMessage(text="x"))).text == "x"


async def test_busy_port_is_one_line_that_names_the_setting(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        with pytest.raises(StartError) as caught:
            async with serving(tmp_path, port=running.server.port):
                pass
    assert str(caught.value).startswith(f"echo.grpc.port: {running.address} is in use")


async def test_table_and_protos_must_name_the_same_methods(tmp_path: Path) -> None:
    server = RpcServer(
        Access(Tokens(tmp_path)),
        readiness=Readiness(),
        host="127.0.0.1",
        port=0,
        setting="port",
    )
    with pytest.raises(ValueError, match=f"/{SERVICE}/Count"):
        server.add(register, EchoServicer(), service=DESCRIPTOR, table=methods(SERVICE, Echo=OPEN))


async def grpcurl(*args: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "grpcurl",
        "-plaintext",
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_grpcurl_lists_describes_calls_and_sees_reasons(tmp_path: Path) -> None:
    async def echo(request: Any, context: Any) -> Any:
        if request.text == "missing":
            raise not_found("no such thing – ü", reason="THING_UNKNOWN")
        return request

    async with serving(tmp_path, EchoServicer(echo=echo), echo=OPEN) as running:
        address = running.address
        assert await grpcurl(address, "list") == (
            0,
            f"{SERVICE}\ngrpc.health.v1.Health\ngrpc.reflection.v1alpha.ServerReflection\n",
        )
        status, output = await grpcurl(address, "describe", SERVICE)
        assert status == 0
        assert "rpc Echo" in output
        status, output = await grpcurl("-d", '{"text": "hi"}', address, f"{SERVICE}/Echo")
        assert (status, "".join(output.split())) == (0, '{"text":"hi"}')
        status, output = await grpcurl(address, "grpc.health.v1.Health/Check")
        assert (status, "".join(output.split())) == (0, '{"status":"SERVING"}')
        status, output = await grpcurl("-d", '{"text": "missing"}', address, f"{SERVICE}/Echo")
        assert status != 0
        assert "Code: NotFound" in output
        assert "Message: no such thing – ü" in output
        assert '"reason":"THING_UNKNOWN"' in output
