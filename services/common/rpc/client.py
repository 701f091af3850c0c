"""Channels to other services: every replica used, every call with a token and a deadline.

A target is `host:port`; all addresses that DNS has for the host are used in turn (`round_robin`),
which is why a headless Service stands behind it in a cluster. A call fails at once when nobody
answers; whoever calls decides what that means for a mail.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

# For a unary call whose caller gave no deadline, which is one too many to wait for ever.
DEFAULT_DEADLINE_SECONDS = 10.0

TokenSource = Callable[[], str]

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.service_config_disable_resolution", 1),  # no TXT queries for every name
    # A replica that is back should be used again within seconds, not after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 2000),
    # Without pings a peer that vanished is noticed only by the deadlines of calls.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Services talk to each other, whatever proxy the environment names for the world.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """TLS towards a server: whom to trust and, for mutual TLS, who we are (PEM files)."""

    authorities: Path | None = None  # None: those of the system
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""  # instead of the target's host


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time that several calls share, so that retries and steps cannot add up."""

    at: float  # of time.monotonic()

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds, for the `timeout` of a call; below 0 when it has passed: the call then fails.

        Not cut off at 0: gRPC rounds up, and a quick call with a timeout of 0 succeeds.
        """
        return self.at - time.monotonic()


def channel(
    target: str, *, token_source: TokenSource | None = None, tls: ClientTls | None = None
) -> grpc.aio.Channel:
    """A channel to the service at `target` (`host:port`), to be given to a generated stub."""
    if tls is None:
        plain = grpc.aio.insecure_channel(target, options=_OPTIONS)
        return _Channel(plain, token_source)
    options = list(_OPTIONS)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(
        _octets(tls.authorities), _octets(tls.key), _octets(tls.certificate)
    )
    return _Channel(grpc.aio.secure_channel(target, credentials, options=options), token_source)


def _octets(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


class _Channel(grpc.aio.Channel):
    """Adds token and deadline to each call.

    Call credentials of gRPC refuse plain text, and its interceptors cost a task per call; this
    costs a function call.
    """

    def __init__(self, inner: grpc.aio.Channel, token_source: TokenSource | None) -> None:
        self._inner = inner
        self._token_source = token_source

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._inner.unary_unary(*args, **kwargs), DEFAULT_DEADLINE_SECONDS)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._inner.stream_unary(*args, **kwargs), DEFAULT_DEADLINE_SECONDS)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._inner.unary_stream(*args, **kwargs), None)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._inner.stream_stream(*args, **kwargs), None)

    def _call(self, inner: Callable[..., Any], default_timeout: float | None) -> Any:
        source = self._token_source

        def call(
            request: Any = None, *, timeout: float | None = None, metadata: Any = (), **other: Any
        ) -> Any:
            token = source() if source is not None else ""
            if token:
                metadata = (*metadata, ("authorization", f"Bearer {token}"))
            if timeout is None:
                timeout = default_timeout
            return inner(request, timeout=timeout, metadata=metadata, **other)

        return call

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()
