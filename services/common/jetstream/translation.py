"""nats-py's exceptions as ours, with the metrics of every call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import nats.errors
import nats.js.errors
from prometheus_client import Counter, Histogram

from services.common.store import (
    Conflict,
    Full,
    Missing,
    Refused,
    StoreError,
    TooLarge,
    Unavailable,
)

REQUEST_TIMEOUT_S: Final = 5.0
"""One call to the server. It answers in milliseconds; a new leader is elected in 2–4 s."""

_INSUFFICIENT_RESOURCES: Final = frozenset({10002, 10023, 10047, 10074, 10077})
"""JetStream's codes for: the account's limit, no resources, no storage, maximum bytes reached,
storing failed."""

_CLUSTER_NOT_READY: Final = frozenset({10004, 10005, 10006, 10007, 10008, 10009})
"""JetStream's codes for: incomplete, no peers to place a stream on, not active, not assigned, not
available, no leader. They pass once the nodes have found one another."""

_NO_SUCH_SEQUENCE: Final = 10043
_NOT_REMOVED: Final = 10057
_GONE: Final = frozenset({"no message found", "deleted message", "stream store EOF"})
"""What the server says with `_NOT_REMOVED` when the message that it is to remove is not there."""

_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})

REQUEST_SECONDS = Histogram(
    "gatepost_nats_request_seconds",
    "Time until JetStream answered, by kind of call.",
    ["call"],  # publish, batch, ack
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
REQUEST_ERRORS = Counter(
    "gatepost_nats_errors_total",
    "Calls to JetStream that failed, by kind of failure.",
    ["reason"],  # unavailable, full, conflict, refused
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn nats-py's exceptions into ours."""
    try:
        yield
    except StoreError:
        raise
    except nats.js.errors.APIError as error:
        code = getattr(error, "err_code", None) or 0
        text = getattr(error, "description", None) or str(error)
        if code in _WRONG_LAST_SEQUENCE or isinstance(
            error, nats.js.errors.KeyWrongLastSequenceError
        ):
            REQUEST_ERRORS.labels("conflict").inc()
            raise Conflict(text) from error
        if code in _INSUFFICIENT_RESOURCES:
            REQUEST_ERRORS.labels("full").inc()
            raise Full(text) from error
        if code in _CLUSTER_NOT_READY or isinstance(error, nats.js.errors.ServiceUnavailableError):
            REQUEST_ERRORS.labels("unavailable").inc()
            raise Unavailable(text) from error
        if isinstance(error, nats.js.errors.NotFoundError) or _is_gone(code, text):
            raise Missing(text) from error
        REQUEST_ERRORS.labels("refused").inc()
        raise Refused(f"{text} (error code {code})") from error
    except nats.js.errors.NoStreamResponseError as error:
        REQUEST_ERRORS.labels("unavailable").inc()
        raise Unavailable("no stream answers on this subject") from error
    except nats.errors.MaxPayloadError as error:
        REQUEST_ERRORS.labels("refused").inc()
        raise TooLarge("the message is longer than the server's max_payload") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        REQUEST_ERRORS.labels("unavailable").inc()
        raise Unavailable(f"{type(error).__name__}: {error}") from error


def _is_gone(code: int, text: str) -> bool:
    return code == _NO_SUCH_SEQUENCE or (code == _NOT_REMOVED and text in _GONE)
