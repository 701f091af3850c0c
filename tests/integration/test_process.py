"""The process around a service, as a supervisor sees it: signals, exit codes, log, probes."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.echo_rpc import EchoMessage, EchoStub
from tests.support.ports import free_port

STOPPED = [
    "drain listeners begins",
    "drain listeners done",
    "drain sessions begins",
    "drain sessions done",
    "consumer cancelled",
    "close channel begins",
    "close channel done",
    "close nats begins",
    "close nats done",
]

BLOCKED = "event loop was blocked"
"""Logged on a machine with too much to do."""


@dataclass
class Running:
    """A small service in a process of its own."""

    process: asyncio.subprocess.Process
    http_port: int
    rpc_port: int
    said: list[str] = field(default_factory=list)

    async def until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.said:
            line = await self.process.stdout.readline()
            assert line, f"ended without saying {text!r}: {self.said}"
            self.said.append(line.decode().strip())

    async def ready(self) -> None:
        await self.until("started")
        while "200 OK" not in await self.get("/readyz"):
            pass

    async def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and log; every line of the log must be a JSON object."""
        out, err = await self.process.communicate()
        self.said += out.decode().splitlines()
        code = self.process.returncode
        assert code is not None
        return code, [json.loads(line) for line in err.decode().splitlines()]

    async def get(self, path: str) -> str:
        """Status line and body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer


@asynccontextmanager
async def running(scenario: str, *, rpc: bool = False) -> AsyncIterator[Running]:
    ports = free_port(), free_port()
    arguments = [str(ports[0]), scenario, *([str(ports[1])] if rpc else [])]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.small_service",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Running(process, *ports)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_in_order(number: signal.Signals) -> None:
    async with running("ordinary") as service:
        await service.ready()
        service.process.send_signal(number)
        code, log = await service.ended()
    assert code == 0
    assert service.said == ["started", *STOPPED]
    assert [line["msg"] for line in log if line["msg"] != BLOCKED] == [
        "process started",
        "ready",
        "signal received",
        "stopping",
        "process stopped",
    ]
    assert {line["service"] for line in log} == {"policy"}


async def test_what_drains_says_so_and_serves_until_the_end() -> None:
    async with (
        running("drain-until-late", rpc=True) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.rpc_port}") as channel,
    ):
        await service.ready()
        health, ready, not_ready = health_pb2_grpc.HealthStub(channel), 1, 2
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == ready
        service.process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == not_ready
        readiness = await service.get("/readyz")
        assert "503 Service Unavailable" in readiness
        assert '"stop": "shutting down"' in readiness
        assert "200 OK" in await service.get("/healthz")
        # A client that has not heard of it yet is served until the end.
        answer = await EchoStub(channel).Echo(EchoMessage(text="late"))
        assert answer.text == "late"
        code, _ = await service.ended()
    assert code == 0


async def test_call_in_hand_survives_the_stop() -> None:
    async with (
        running("ordinary", rpc=True) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.rpc_port}") as channel,
    ):
        await service.until("started")
        call = asyncio.ensure_future(EchoStub(channel).Echo(EchoMessage(text="in hand")))
        await service.until("call begins")
        service.process.send_signal(signal.SIGTERM)
        assert (await call).text == "in hand"
        code, log = await service.ended()
    assert code == 0
    warnings = {line["msg"] for line in log if line["level"] not in ("info", "debug")}
    assert not warnings - {BLOCKED}


@pytest.mark.parametrize(
    ("scenario", "text", "detail"),
    [
        ("task-fails", "task failed", "the consumer is gone"),
        ("task-ends", "task ended, which it must not", None),
    ],
)
async def test_lost_task_ends_the_process_in_order(
    scenario: str, text: str, detail: str | None
) -> None:
    async with running(scenario) as service:
        code, log = await service.ended()
    assert code == 1
    [line] = [line for line in log if line["level"] == "critical"]
    assert (line["msg"], line["task"]) == (text, "pull")
    if detail:
        assert detail in line["error"]
    assert service.said == ["started", *STOPPED]


@pytest.mark.parametrize(
    ("scenario", "code", "reason"),
    [
        ("start-error", 1, "policy.grpc.port: 127.0.0.1:1 is in use by another process"),
        ("bad-config", 2, "unknown key smpt"),
    ],
)
async def test_expected_error_at_start_is_one_line(scenario: str, code: int, reason: str) -> None:
    async with running(scenario) as service:
        found, log = await service.ended()
    assert found == code
    [line] = [line for line in log if line["level"] == "critical"]
    assert line["reason"] == reason
    assert "error" not in line
    assert service.said == STOPPED  # what had started was stopped


async def test_unforeseen_error_at_start_is_told_with_its_traceback() -> None:
    async with running("start-crash") as service:
        code, log = await service.ended()
    assert code == 1
    [line] = [line for line in log if line["level"] == "critical"]
    assert "RuntimeError: unforeseen" in line["error"]


async def test_busy_ports_are_named() -> None:
    async with running("ordinary", rpc=True) as service:
        await service.until("started")
        for number, setting in ((0, "policy.http.port"), (1, "policy.grpc.port")):
            ports = [free_port(), free_port()]
            ports[number] = (service.http_port, service.rpc_port)[number]
            second = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.support.small_service",
                str(ports[0]),
                "ordinary",
                str(ports[1]),
                stderr=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
            )
            _, err = await second.communicate()
            assert second.returncode == 1
            log = [json.loads(line) for line in err.splitlines()]
            [line] = [line for line in log if line["level"] == "critical"]
            place = f"127.0.0.1:{ports[number]}"
            assert line["reason"].startswith(f"{setting}: {place} is in use")


async def test_signal_during_the_start_stops_it() -> None:
    async with running("start-hangs") as service:
        await service.until("hanging")
        assert "503" in await service.get("/readyz")
        service.process.send_signal(signal.SIGTERM)
        code, _ = await service.ended()
    assert code == 0
    assert service.said == ["hanging", *STOPPED]


async def test_late_part_is_named_and_the_others_are_stopped() -> None:
    async with running("endless-drain") as service:
        await service.until("started")
        service.process.send_signal(signal.SIGTERM)
        code, log = await service.ended()
    assert code == 0
    late = [line["part"] for line in log if line["msg"] == "part did not stop in time"]
    assert late[0] == "listeners"
    assert service.said[-1] == "close nats done"


async def test_part_that_cannot_stop_is_named_and_the_others_are_stopped() -> None:
    async with running("drain-fails") as service:
        await service.until("started")
        service.process.send_signal(signal.SIGTERM)
        code, log = await service.ended()
    assert code == 0
    [line] = [line for line in log if line["msg"] == "part cannot be stopped"]
    assert line["part"] == "broken"
    assert "the consumer is gone" in line["error"]
    assert service.said == ["started", *STOPPED]


async def test_one_wish_told_twice_is_no_order_to_die() -> None:
    """Ctrl-C goes to the whole group, and then the supervisor passes it on."""
    async with running("drain-while-told-again") as service:
        await service.until("started")
        service.process.send_signal(signal.SIGINT)
        code, _ = await service.ended()
    assert code == 0
    assert service.said == ["started", *STOPPED]


async def test_second_signal_ends_at_once() -> None:
    async with running("stuck-drain") as service:
        await service.until("started")
        service.process.send_signal(signal.SIGTERM)
        await service.until("drain listeners begins")
        await asyncio.sleep(1.1)  # until a second signal is no longer the same wish
        service.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            code, log = await service.ended()
    assert code == 1
    assert log[-1]["msg"] == "second signal: ending at once"
    assert service.said == ["started", "drain listeners begins"]


async def test_task_that_ignores_its_cancellation_cannot_hold_up_the_end() -> None:
    async with running("stubborn") as service:
        await service.until("started")
        service.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            code, log = await service.ended()
    assert code == 1
    [line] = [line for line in log if line["msg"] == "task ignores its cancellation"]
    assert line["task"] == "stubborn"
    assert service.said[-1] == "close nats done"


async def test_blocking_call_in_a_thread_cannot_hold_up_the_end() -> None:
    async with running("stuck-thread") as service:
        await service.until("started")
        service.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            code, log = await service.ended()
    assert code == 0
    assert log[-1]["msg"] == "threads did not end"


async def test_stray_exceptions_are_log_lines() -> None:
    async with running("stray-exception") as service:
        code, log = await service.ended()
    assert code == 0
    [line] = [line for line in log if line["level"] == "error"]
    assert "ZeroDivisionError" in line["error"]


async def test_blocked_loop_is_measured_and_told() -> None:
    async with running("blocked") as service:
        await service.until("started")
        metrics: dict[str, str] = {}
        while float(metrics.get("gatepost_event_loop_lag_seconds_sum", "0")) < 1.0:
            page = await service.get("/metrics")
            lines = page.split("\r\n\r\n")[1].splitlines()
            metrics = dict(line.rsplit(" ", 1) for line in lines if line.startswith("gatepost"))
        service.process.send_signal(signal.SIGTERM)
        _, log = await service.ended()
    assert [line["seconds"] for line in log if line["msg"] == "event loop was blocked"]
    [build] = [name for name in metrics if name.startswith("gatepost_build_info")]
    assert 'service="policy"' in build
