"""Mail that waits, put into the queue past ingress, and the memory that its server is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from services.common.queue.record import deferred

BATCH = 500
_BASE_MIB = 512
_KIB_EACH = 4
"""What helm/gatepost/templates/_nats.tpl gives the server."""


def memory_mib(records: int) -> int:
    """What nats-server may take where so many records wait."""
    return _BASE_MIB + records * _KIB_EACH // 1024


def memory_environment(records: int) -> Mapping[str, str]:
    """What the chart tells nats-server about it."""
    return {"GOMEMLIMIT": f"{memory_mib(records) * 9 // 10}MiB"}


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no VmHWM")


async def have_wait(store: JetStream, records: Iterable[QueuedMessage], due: datetime) -> None:
    """Put records, of which none holds its content, into the queue to wait for a time."""
    waiting = iter(records)
    while batch := [deferred(record, due) for record in islice(waiting, BATCH)]:
        await store.publish_batch(batch, timeout_s=30)
