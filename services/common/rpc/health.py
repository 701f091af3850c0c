"""The standard health service (grpc.health.v1), answered from the process's readiness.

Every service of the server has the health of the whole process, which is asked for with an empty
name. Nothing is stored here, so an answer is never older than the readiness itself.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.readiness import Readiness
from services.common.rpc.auth import OPEN, methods
from services.common.rpc.errors import not_found

HEALTH = "grpc.health.v1.Health"
METHODS = methods(HEALTH, Check=OPEN, List=OPEN, Watch=OPEN)

_Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
_Answer = health_pb2.HealthCheckResponse
_ListResponse = health_pb2.HealthListResponse  # type: ignore[attr-defined]  # newer than its types


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers for the server ("") and for the services named in `services`."""

    def __init__(self, readiness: Readiness, services: Iterable[str]) -> None:
        self._readiness = readiness
        self._names = frozenset({"", HEALTH, *services})

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            raise not_found("no service of this name here", reason="SERVICE_UNKNOWN")
        return _Answer(status=self._status(request.service))

    async def List(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        answer = _ListResponse()
        for name in self._names:
            answer.statuses[name].status = self._status(name)
        return answer

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        sent = -1
        while True:
            changed = self._readiness.next_change()
            status = self._status(request.service)
            if status != sent:
                yield _Answer(status=status)
                sent = status
            await changed.wait()

    def _status(self, name: str) -> int:
        if name not in self._names:
            return _Answer.SERVICE_UNKNOWN
        return _Answer.SERVING if self._readiness.ready else _Answer.NOT_SERVING
