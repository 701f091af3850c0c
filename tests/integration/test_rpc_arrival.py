"""Requests that do not arrive: who may have us wait for them, for how long, and how many."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from services.common.rpc.auth import VIEW, Role
from services.common.rpc.errors import reason_of
from services.common.rpc.guard import Limits
from tests.support.echo_rpc import COUNT, ECHO, EchoMessage, EchoStub, Serving, serving

_CALL_SECONDS = 20.0


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks do; the test's own deadline ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


async def _never() -> AsyncGenerator[Any, None]:
    await asyncio.Event().wait()
    yield EchoMessage()


def unfinished(channel: grpc.aio.Channel, method: str = ECHO, *, token: str = "") -> Any:
    """A call whose request does not come."""
    open_call: Any = channel.stream_unary if method == ECHO else channel.stream_stream
    codec = (EchoMessage.SerializeToString, EchoMessage.FromString)
    return open_call(method, *codec)(_never(), metadata=bearing(token), timeout=_CALL_SECONDS)


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


def arriving(running: Serving) -> int:
    return running.server.guard._arrival._taken


@asynccontextmanager
async def guarded(folder: Path, limits: Limits) -> AsyncIterator[tuple[Serving, grpc.aio.Channel]]:
    async with (
        serving(folder, echo=VIEW, count=VIEW, limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield running, channel


@pytest.mark.parametrize("method", [ECHO, COUNT])
async def test_unfinished_requests_of_strangers_hold_up_nobody_who_is_known(
    tmp_path: Path, method: str
) -> None:
    limits = Limits(
        open_arrivals=1, open_unary=1, open_streams=1, arrival_deadline=600.0, stop_grace=0.2
    )
    async with guarded(tmp_path, limits) as (running, channel):
        strangers = [unfinished(channel, method) for _ in range(3)]
        await until(lambda: arriving(running) == 3)
        stub = EchoStub(channel)
        error = await failure_of(stub.Echo(EchoMessage(text="x"), timeout=_CALL_SECONDS))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "SERVER_BUSY"
        known = bearing(running.token(Role.VIEWER))
        for _ in range(5):
            answer = await stub.Echo(EchoMessage(text="x"), metadata=known, timeout=_CALL_SECONDS)
            assert answer.text == "x"
        # Those who leave make room.
        for stranger in strangers:
            stranger.cancel()
        await until(lambda: arriving(running) == 0)
        error = await failure_of(stub.Echo(EchoMessage(text="x"), timeout=_CALL_SECONDS))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_burst_of_strangers_waits_for_its_turn(tmp_path: Path) -> None:
    limits = Limits(open_arrivals=1, stop_grace=0.2)
    async with (
        serving(tmp_path, limits=limits) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = EchoStub(channel)
        calls = [stub.Echo(EchoMessage(text=str(n)), timeout=_CALL_SECONDS) for n in range(50)]
        assert [(await call).text for call in calls] == [str(n) for n in range(50)]


@pytest.mark.parametrize("role", [Role.NONE, Role.VIEWER])
async def test_a_request_that_does_not_come_is_given_up(tmp_path: Path, role: Role) -> None:
    limits = Limits(arrival_deadline=0.2, stop_grace=0.2)
    async with guarded(tmp_path, limits) as (running, channel):
        token = "" if role is Role.NONE else running.token(role)
        error = await failure_of(unfinished(channel, token=token))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason_of(error) == "REQUEST_TOO_SLOW"
        assert arriving(running) == 0


async def test_a_request_that_cannot_be_decoded_is_the_callers_fault(tmp_path: Path) -> None:
    async with guarded(tmp_path, Limits(stop_grace=0.2)) as (_, channel):
        echo: Any = channel.unary_unary(ECHO)  # octets as they are
        error = await failure_of(echo(b"\xff\xff\xff", timeout=_CALL_SECONDS))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(error) == "INVALID_REQUEST"
