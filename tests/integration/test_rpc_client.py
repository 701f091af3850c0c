"""Channels: token and deadline on each call, every replica used, back soon after a restart."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from services.common.rpc.client import Deadline, channel
from services.common.rpc.guard import Limits
from tests.support.echo_rpc import EchoMessage, EchoServicer, EchoStub, serving
from tests.support.ports import free_port


async def test_call_without_a_deadline_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.rpc.client.DEFAULT_DEADLINE_SECONDS", 50.0)
    left: list[float] = []

    async def echo(request: Any, context: Any) -> Any:
        left.append(context.time_remaining())
        return request

    async with (
        serving(tmp_path, EchoServicer(echo=echo)) as running,
        channel(running.address) as open_channel,
    ):
        stub = EchoStub(open_channel)
        await stub.Echo(EchoMessage())
        await stub.Echo(EchoMessage(), timeout=Deadline.after(30.0).left)
    assert 40.0 < left[0] < 50.1  # gRPC rounds up
    assert 20.0 < left[1] < 30.1


async def test_call_after_its_deadline_fails_without_being_made(tmp_path: Path) -> None:
    called = []

    async def echo(request: Any, context: Any) -> Any:
        called.append(request)
        return request

    async with (
        serving(tmp_path, EchoServicer(echo=echo)) as running,
        channel(running.address) as open_channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(open_channel).Echo(EchoMessage(), timeout=Deadline.after(-1.0).left)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert called == []


async def test_metadata_of_the_caller_and_the_token_both_arrive(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def echo(request: Any, context: Any) -> Any:
        seen.update(context.invocation_metadata())
        return request

    async with (
        serving(tmp_path, EchoServicer(echo=echo)) as running,
        channel(running.address, token_source=lambda: "sesame") as open_channel,
    ):
        await EchoStub(open_channel).Echo(EchoMessage(), metadata=(("session", "abc"),))
    assert seen["authorization"] == "Bearer sesame"
    assert seen["session"] == "abc"


async def test_all_replicas_share_the_calls(tmp_path: Path) -> None:
    count = {"a": 0, "b": 0}

    def replica(name: str) -> EchoServicer:
        async def echo(request: Any, context: Any) -> Any:
            count[name] += 1
            return request

        return EchoServicer(echo=echo)

    async with (
        serving(tmp_path, replica("a")) as a,
        serving(tmp_path, replica("b")) as b,
        channel(f"ipv4:{a.address},{b.address}") as open_channel,
    ):
        stub = EchoStub(open_channel)
        while not all(count.values()):  # until both are connected
            await stub.Echo(EchoMessage())
        count.update(a=0, b=0)
        for _ in range(40):
            await stub.Echo(EchoMessage())
        assert count == {"a": 20, "b": 20}
        # One replica stops in order: nobody notices.
        await a.server.stop()
        for _ in range(20):
            await stub.Echo(EchoMessage())


async def test_nobody_there_fails_at_once_and_heals_soon(tmp_path: Path) -> None:
    port = free_port()
    async with channel(f"127.0.0.1:{port}") as open_channel:
        stub = EchoStub(open_channel)
        async with asyncio.timeout(20.0):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Echo(EchoMessage(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with serving(tmp_path, port=port, limits=Limits(stop_grace=0.1)):
            async with asyncio.timeout(25.0):
                while True:
                    try:
                        await stub.Echo(EchoMessage())
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)


def test_the_core_library_knows_the_experiments_that_are_turned_off() -> None:
    """It says so of one that it does not know, and goes on with what it does by default."""
    program = "import services.common.rpc, grpc; grpc.insecure_channel('127.0.0.1:1').close()"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stderr == ""
