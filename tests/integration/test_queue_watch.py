"""Events are watched across connections: none is lost, none is told twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.cli import watching
from services.cli.connection import Connection
from services.cli.failure import CliError, Exit
from services.common.jetstream import JetStream
from services.common.rpc.guard import Limits
from services.delivery.events import Events
from tests.support.delivery import Delivery, until
from tests.support.queue_calls import queue_server

BRIEF = Limits(connection_age=0.3, connection_age_grace=0.2, stop_grace=0.2)
MAIL = "0000000000000000-1"


class Counting(Connection):
    """Counts the streams that are opened."""

    opened = 0

    def stream(self, method: Callable[..., Iterator[Any]], request: Any) -> Iterator[Any]:
        self.opened += 1
        return super().stream(method, request)


@contextlib.contextmanager
def connected(port: int, folder: Path) -> Iterator[Counting]:
    token = (folder / "operator.token").read_text().strip()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Counting(channel, f"127.0.0.1:{port}", token=token, why_no_token="")


@contextlib.asynccontextmanager
async def happening(store: JetStream) -> AsyncIterator[None]:
    """One event after the other, with a number each."""

    async def happen() -> None:
        for number in count():
            await Events(store).operator(MAIL, str(number), "", datetime.now(UTC))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(happen())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def see(connection: Connection, many: int, seen: list[int]) -> None:
    """Watch until so many events have come; their numbers are added to `seen`."""
    coming = islice(watching.watched(connection), many)
    seen.extend(int(event.operator.method) for event in coming)


def see_at_last(connection: Counting, many: int, seen: list[int]) -> None:
    """As `see`, though the question before the first stream may meet the end of a connection."""
    for _ in range(20):
        try:
            return see(connection, many, seen)
        except CliError:
            if connection.opened:
                raise
    raise TimeoutError("the first question was never answered")


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAUSE_S", 0.1)


async def test_a_watch_goes_on_when_its_connection_has_become_old(
    store: JetStream, tmp_path: Path
) -> None:
    seen: list[int] = []
    async with queue_server(Delivery(store, {}), tmp_path, limits=BRIEF) as port, happening(store):
        with connected(port, tmp_path) as connection:
            async with asyncio.timeout(60):
                await asyncio.to_thread(see_at_last, connection, 100, seen)
    assert seen == list(range(seen[0], seen[0] + 100))
    assert connection.opened > 1


async def test_a_watch_goes_on_after_a_restart(store: JetStream, tmp_path: Path) -> None:
    seen: list[int] = []
    delivery = Delivery(store, {})
    limits = Limits(stop_grace=0.2)
    async with contextlib.AsyncExitStack() as stack:
        async with queue_server(delivery, tmp_path, limits=limits) as port:
            connection = stack.enter_context(connected(port, tmp_path))
            await stack.enter_async_context(happening(store))
            following = asyncio.create_task(asyncio.to_thread(see, connection, 100, seen))
            await until(lambda: len(seen) > 10)
        async with queue_server(delivery, tmp_path, port=port, limits=limits):
            async with asyncio.timeout(60):
                await following
    assert seen == list(range(seen[0], seen[0] + 100))
    assert connection.opened > 1


async def test_a_watch_fails_at_once_if_nobody_answers_at_first(tmp_path: Path) -> None:
    (tmp_path / "operator.token").write_text("x")
    with connected(1, tmp_path) as connection, pytest.raises(CliError) as caught:
        await asyncio.to_thread(see, connection, 1, [])
    assert caught.value.exit_code is Exit.UNAVAILABLE


async def test_a_watch_that_is_not_allowed_fails(store: JetStream, tmp_path: Path) -> None:
    async with queue_server(Delivery(store, {}), tmp_path) as port:
        (tmp_path / "operator.token").write_text("x" * 43)
        with connected(port, tmp_path) as connection, pytest.raises(CliError) as caught:
            await asyncio.to_thread(see, connection, 1, [])
    assert caught.value.exit_code is Exit.PERMISSION
