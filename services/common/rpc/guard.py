"""What happens around every call: access, budget, deadline, errors, metrics.

One server interceptor, which wraps each method once, at its first call. In this order: the request
is read (`arrival.py`); the caller is admitted or refused (`auth.py`); a place is taken in the
budget of that kind of call; the method runs, within the deadline of the client or, where that is
missing or too long, within ours; what it raises becomes a status (`errors.py`), and what nobody
foresaw becomes INTERNAL with a fixed text and its traceback in the log.

Budgets are four, so that calls which nobody vouches for cannot take the places of the others, nor
streams those of short calls. A call that finds none free gets RESOURCE_EXHAUSTED at once.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, TypeAlias

import grpc
import grpc.aio
from prometheus_client import Counter, Gauge, Histogram

from services.common.log import ERROR, event
from services.common.rpc.arrival import Arrival, Requests
from services.common.rpc.auth import Access, Caller, Rule
from services.common.rpc.errors import (
    RpcFailure,
    deadline_exceeded,
    internal,
    resource_exhausted,
    unavailable,
    unimplemented,
)

REQUESTS = Counter(
    "gatepost_rpc_requests_total",
    "Calls that ended, by method and canonical status code; `unknown` is any undefined method.",
    ["method", "code"],
)
SECONDS = Histogram(
    "gatepost_rpc_seconds",
    "Time from the arrival of a call's request to its answer; calls that answer with a stream not.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
IN_PROGRESS = Gauge(
    "gatepost_rpc_in_progress",
    "Calls that hold a place, by budget: unary, open_unary, stream, open_stream.",
    ["budget"],
)

ROUNDED_S = 0.2
"""A client's deadline comes here rounded up, by a tenth of a second where it is over ten, and later
than it counts from: what is given up with less than this left was given up at its deadline."""

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, Context], Awaitable[Any]]
Reader = Callable[[Requests, Caller], Awaitable[Any]]
Flow = Callable[[Any, Context], AsyncGenerator[Any, None]]
# Quoted: the class has parameters only for type checkers.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one gRPC server takes. Times in seconds, sizes in octets.

    `open_…` is for calls without a token. A Python process answers some thousand short calls a
    second, so 256 places are a queue of under a tenth of a second.
    """

    unary: int = 256
    open_unary: int = 64
    streams: int = 64
    open_streams: int = 16
    open_arrivals: int = 32  # requests that are read at a time; the other places wait
    arrival_deadline: float = 10.0
    default_deadline: float = 10.0  # for a unary call whose client set none
    max_deadline: float = 60.0
    open_stream_deadline: float = 300.0  # others live until the client or the server ends
    max_receive_size: int = 1024 * 1024
    max_send_size: int = 16 * 1024 * 1024
    connection_streams: int = 1024  # a load balancer may put many clients on one connection
    connection_age: float = 300.0  # then the client looks the name up again, and finds new replicas
    connection_age_grace: float = 60.0  # for calls under way on an old connection
    stop_grace: float = 10.0

    @property
    def calls(self) -> int:
        """All places together."""
        return self.unary + self.open_unary + self.streams + self.open_streams


class Budget:
    """So many places; `with budget:` takes one or raises RESOURCE_EXHAUSTED."""

    def __init__(self, name: str, places: int) -> None:
        self.name = name
        self.places = places
        self.taken = 0
        IN_PROGRESS.labels(name).set_function(lambda: self.taken)

    def __enter__(self) -> None:
        if self.taken >= self.places:
            text = f"all {self.places} places of the budget {self.name} are taken; try again"
            raise resource_exhausted(text, reason="SERVER_BUSY")
        self.taken += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.taken -= 1


class _Record:
    """Counts the calls of one method, with the label look-ups done once."""

    def __init__(self, method: str) -> None:
        self._method = method.removeprefix("/")
        self._seconds = SECONDS.labels(self._method)
        self._codes: dict[str, Counter] = {}

    def count(self, code: str) -> None:
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = REQUESTS.labels(self._method, code)
        counter.inc()

    def count_timed(self, code: str, seconds: float) -> None:
        self.count(code)
        self._seconds.observe(seconds)


class Guard(grpc.aio.ServerInterceptor):
    """The interceptor of one server."""

    def __init__(self, access: Access, limits: Limits) -> None:
        self._access = access
        self._limits = limits
        self._unary = Budget("unary", limits.unary)
        self._open_unary = Budget("open_unary", limits.open_unary)
        self._streams = Budget("stream", limits.streams)
        self._open_streams = Budget("open_stream", limits.open_streams)
        self._arrival = Arrival(
            seconds=limits.arrival_deadline,
            places=limits.open_arrivals,
            waiting=limits.open_unary + limits.open_streams,
        )
        self._wrapped: dict[str, Handler] = {}
        self._streaming: dict[asyncio.Task[Any] | None, Callable[[], object]] = {}
        """How each stream is told to end."""
        self._stopping = False

    def end_streams(self) -> None:
        """End all streams, now and in future, with UNAVAILABLE; clients go to another replica."""
        self._stopping = True
        for stop in list(self._streaming.values()):
            stop()

    def ends_by(self, stop: Callable[[], object]) -> None:
        """Have `stop` called in the place of ending this stream, which then ends by itself."""
        self._streaming[asyncio.current_task()] = stop

    def asked(self, method: str, behavior: Answer) -> Answer:
        """`behavior` for a question within a stream, which was admitted: with a place of its own,
        counted as a call of `method`. Raises `RpcFailure` alone."""
        record = _Record(method)

        async def answer(request: Any, context: Any) -> Any:
            started, code = perf_counter(), "OK"
            try:
                with self._unary:
                    return await behavior(request, context)
            except BaseException as error:
                code, failure = self._judge(method, error, context)
                if failure is None or failure is error:
                    raise
                raise failure from error
            finally:
                record.count_timed(code, perf_counter() - started)

        return answer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None:
            REQUESTS.labels("unknown", grpc.StatusCode.UNIMPLEMENTED.name).inc()
            return None
        return self._wrapped.setdefault(method, self._wrap(method, handler))

    def _wrap(self, method: str, handler: Handler) -> Handler:
        rule = self._access.rule(method)
        codec = (handler.request_deserializer, handler.response_serializer)
        # The types of the library know only the behaviors of its threaded server.
        behaviors: Any = handler
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                answer = self._answer(method, rule, behaviors.unary_unary, self._arrival.request)
                return grpc.stream_unary_rpc_method_handler(answer, *codec)
            case True, False:
                answer = self._answer(method, rule, behaviors.stream_unary, _as_they_come)
                return grpc.stream_unary_rpc_method_handler(answer, *codec)
            case False, True:
                flow = self._flow(method, rule, behaviors.unary_stream, self._arrival.request)
                return grpc.stream_stream_rpc_method_handler(flow, *codec)
            case _:
                flow = self._flow(method, rule, behaviors.stream_stream, _as_they_come)
                return grpc.stream_stream_rpc_method_handler(flow, *codec)

    def _answer(self, method: str, rule: Rule, behavior: Answer, arrival: Reader) -> Answer:
        """A method with one answer."""
        access, limits, record = self._access, self._limits, _Record(method)

        async def answer(requests: Requests, context: Context) -> Any:
            started, code = perf_counter(), "OK"
            try:
                caller = access.caller(context)
                request = await arrival(requests, caller)
                started = perf_counter()
                is_open = access.admit(rule, request, caller)
                with self._open_unary if is_open else self._unary:
                    left = _time_left(context)
                    if left is not None and left <= limits.max_deadline:
                        return await behavior(request, context)
                    seconds = limits.default_deadline if left is None else limits.max_deadline
                    return await _within(seconds, behavior(request, context))
            except BaseException as error:
                code, failure = self._judge(method, error, context)
                if failure is None:
                    raise
                await failure.abort(context)
            finally:
                record.count_timed(code, perf_counter() - started)

        return answer

    def _flow(self, method: str, rule: Rule, behavior: Flow, arrival: Reader) -> Flow:
        """A method that answers with a stream."""
        record = _Record(method)

        async def flow(requests: Requests, context: Context) -> AsyncGenerator[Any, None]:
            code = "OK"
            try:
                caller = self._access.caller(context)
                request = await arrival(requests, caller)
                is_open = self._access.admit(rule, request, caller)
                with self._open_streams if is_open else self._streams:
                    seconds = self._limits.open_stream_deadline if is_open else None
                    async with aclosing(self._stream(behavior, request, context, seconds)) as all_:
                        async for response in all_:
                            yield response
            except BaseException as error:
                code, failure = self._judge(method, error, context)
                if failure is None:
                    raise
                await failure.abort(context)
            finally:
                record.count(code)

        return flow

    async def _stream(
        self, behavior: Flow, request: Any, context: Context, seconds: float | None
    ) -> AsyncGenerator[Any, None]:
        task = asyncio.current_task()
        if task is None or self._stopping:
            raise _stopping()
        self._streaming[task] = task.cancel
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline, aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response
        except TimeoutError:
            if not deadline.expired():
                raise
            text = f"a stream without a token ends after {seconds} s"
            raise deadline_exceeded(text, reason="SERVER_DEADLINE") from None
        finally:
            self._streaming.pop(task, None)

    def _judge(
        self, method: str, error: BaseException, context: Context
    ) -> tuple[str, RpcFailure | None]:
        """The code to count, and the failure to answer with unless the call has ended already."""
        match error:
            case RpcFailure():
                failure = error
            case NotImplementedError():
                failure = unimplemented("not implemented yet", reason="NOT_IMPLEMENTED")
            case grpc.aio.AbortError():
                return grpc.StatusCode(context.code()).name, None
            case asyncio.CancelledError() if self._stopping and not context.cancelled():
                failure = _stopping()
            case asyncio.CancelledError():
                left = _time_left(context)
                expired = left is not None and left <= ROUNDED_S
                return ("DEADLINE_EXCEEDED" if expired else "CANCELLED"), None
            case Exception():
                event(_log, ERROR, "call failed", method=method, exc_info=True)
                failure = internal()
            case _:
                return "UNKNOWN", None
        return failure.code.name, failure


async def _as_they_come(requests: Requests, _: Caller) -> Requests:
    return requests


async def _within(seconds: float, work: Awaitable[Any]) -> Any:
    """Await `work`; after so many seconds raise DEADLINE_EXCEEDED instead."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await work
    except TimeoutError:
        if not deadline.expired():
            raise  # one of the method's own, which it should have caught
        raise deadline_exceeded(
            f"not done within {seconds:g} s", reason="SERVER_DEADLINE"
        ) from None


def _time_left(context: Context) -> float | None:
    """Seconds until the client's deadline; None if it has none, which the library's types deny."""
    left: float | None = context.time_remaining()
    return left


def _stopping() -> RpcFailure:
    return unavailable("this replica is shutting down", reason="SHUTTING_DOWN")
