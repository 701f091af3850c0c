"""A connection to a running service: where it is, which token to show, how errors come out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import grpc

from services.cli.failure import CliError, Exit
from services.common.rpc.tokens import parse_tokens

TIMEOUT_S: Final = 15.0
DEFAULT_PORTS: Final = {"policy": 7100, "keys": 7200, "queue": 7300}
ENDPOINTS_FILE: Final = "endpoints.json"
"""Written by `gatepost up`, so that commands find the ports of a changed configuration."""
CA_VARIABLE: Final = "GATEPOST_CA_FILE"
"""Names the authorities of the services' certificates, where `services.tls` is on; the chart sets
it in the pods."""

_EXIT_CODES: Final = {
    grpc.StatusCode.UNAVAILABLE: Exit.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Exit.PERMISSION,
    grpc.StatusCode.PERMISSION_DENIED: Exit.PERMISSION,
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
}

Request = TypeVar("Request")
Response = TypeVar("Response")


class Connection:
    """One gRPC channel to one service, for the length of a command."""

    def __init__(
        self, channel: grpc.Channel, target: str, *, token: str, why_no_token: str
    ) -> None:
        """`why_no_token` is said when the service wants a token and `token` is blank."""
        self.channel = channel
        self._target = target
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._why_no_token = why_no_token

    def call(
        self,
        method: Callable[..., Response],
        request: Any,
        *,
        words: Mapping[str, str] = MappingProxyType({}),
    ) -> Response:
        """Call a stub's method. Raises `CliError`.

        `words` has, for names of fields in the service's texts, what was typed here instead.
        """
        try:
            return method(request, timeout=TIMEOUT_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error, words) from error

    def stream(self, method: Callable[..., Iterator[Response]], request: Any) -> Iterator[Response]:
        """Call a stub's streaming method and hand its answers on. Raises `CliError`."""
        try:
            yield from method(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error, {}) from error

    def _failure(self, error: grpc.RpcError, words: Mapping[str, str]) -> CliError:
        code, details = error.code(), _reworded(error.details() or "", words)
        exit_code = _EXIT_CODES.get(code, Exit.FAILED)
        if exit_code is Exit.UNAVAILABLE:
            return CliError(f"{self._target} does not answer: {details}", exit_code)
        if code is grpc.StatusCode.UNAUTHENTICATED and not self._metadata:
            return CliError(f"this needs a token, and {self._why_no_token}", exit_code)
        return CliError(f"{details} ({code.name})", exit_code)


def _reworded(text: str, words: Mapping[str, str]) -> str:
    if not words:
        return text
    names = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b")
    return names.sub(lambda found: words[found[0]], text)


@contextmanager
def connect(
    service: str, *, server: str, data: Path, token_file: Path | None
) -> Iterator[Connection]:
    """Connect to `policy`, `keys` or `queue`. Raises `CliError`."""
    known = _known_endpoints(data)
    target = server or known.get(service, f"127.0.0.1:{DEFAULT_PORTS[service]}")
    authorities = os.environ.get(CA_VARIABLE) or ("" if server else known.get("ca_file", ""))
    token = _token(token_file, data)
    with _channel(target, authorities) as channel:
        yield Connection(channel, target, token=token, why_no_token=_why_no_token(data))


def _channel(target: str, authorities: str) -> grpc.Channel:
    if not authorities:
        return grpc.insecure_channel(target)
    try:
        octets = Path(authorities).read_bytes()
    except OSError as error:
        raise CliError(f"{CA_VARIABLE}: {authorities}: {error.strerror}", Exit.USAGE) from error
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(octets))


def _known_endpoints(data: Path) -> dict[str, str]:
    """What `gatepost up` wrote; empty if nothing."""
    try:
        known = json.loads((data / ENDPOINTS_FILE).read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _token(token_file: Path | None, data: Path) -> str:
    """The first token of the file. A missing default file means none: some methods are open."""
    path = token_file or _default_token(data)
    try:
        tokens = parse_tokens(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if token_file is None:
            return ""
        raise CliError(f"{path}: there is no such token file", Exit.USAGE) from None
    except (OSError, ValueError) as error:
        raise CliError(f"{path}: the token cannot be read: {error}", Exit.PERMISSION) from error
    if token_file is not None and not tokens:
        raise CliError(f"{path}: there is no token in this file", Exit.PERMISSION)
    return tokens[0] if tokens else ""


def _default_token(data: Path) -> Path:
    return data / "tokens" / "operator.token"


def _why_no_token(data: Path) -> str:
    """Where one was looked for, and how to name another place."""
    missing = _default_token(data) if data.is_dir() else data
    found = "has none" if missing.exists() else "does not exist"
    return (
        f"{missing.absolute()} {found}; name the folder of `gatepost up` with --data,"
        " or a file with a token with --token-file"
    )
