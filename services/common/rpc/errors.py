"""Errors as gRPC clients see them: a canonical code, a text for people, a reason for programs.

A method raises what these functions return; the server turns it into the status of the call. The
reason is a word in capitals that callers may compare and that never changes; it travels as a
`google.rpc.ErrorInfo` (status.py). Texts go to whoever called: no secrets, no paths, no Python.
"""

from typing import Never

import grpc
import grpc.aio

from services.common.rpc import status

# Text and details both travel in trailing metadata, which clients limit to 8 KiB; percent-encoding
# can take nine octets for a character.
TEXT_LIMIT_CHARS = 400


class RpcFailure(Exception):
    """Ends a call with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text[:TEXT_LIMIT_CHARS]
        self.reason = reason

    async def abort(self, context: grpc.aio.ServicerContext[object, object]) -> Never:
        """End the call with this status."""
        details = status.encode(self.code, self.text, self.reason)
        await context.abort(self.code, self.text, ((status.DETAILS_FIELD, details),))


def invalid_argument(text: str, *, reason: str) -> RpcFailure:
    """The request cannot be right, whatever the state."""
    return RpcFailure(grpc.StatusCode.INVALID_ARGUMENT, text, reason=reason)


def unreadable_request() -> RpcFailure:
    """The octets of a request are no such message."""
    text = "the request is not in the form that the protos define"
    return invalid_argument(text, reason="INVALID_REQUEST")


def not_found(text: str, *, reason: str) -> RpcFailure:
    """What the request names does not exist."""
    return RpcFailure(grpc.StatusCode.NOT_FOUND, text, reason=reason)


def already_exists(text: str, *, reason: str) -> RpcFailure:
    """What the request would create exists."""
    return RpcFailure(grpc.StatusCode.ALREADY_EXISTS, text, reason=reason)


def failed_precondition(text: str, *, reason: str) -> RpcFailure:
    """The state has to change first; trying again as it is will not help."""
    return RpcFailure(grpc.StatusCode.FAILED_PRECONDITION, text, reason=reason)


def aborted(text: str, *, reason: str) -> RpcFailure:
    """Somebody else changed the same thing; reading it again and trying again may help."""
    return RpcFailure(grpc.StatusCode.ABORTED, text, reason=reason)


def resource_exhausted(text: str, *, reason: str) -> RpcFailure:
    """A limit was reached."""
    return RpcFailure(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason=reason)


def unavailable(text: str, *, reason: str) -> RpcFailure:
    """Not now; the same call may work later."""
    return RpcFailure(grpc.StatusCode.UNAVAILABLE, text, reason=reason)


def unauthenticated(text: str, *, reason: str) -> RpcFailure:
    """Nobody knows who is calling."""
    return RpcFailure(grpc.StatusCode.UNAUTHENTICATED, text, reason=reason)


def permission_denied(text: str, *, reason: str) -> RpcFailure:
    """The caller is known and may not do this."""
    return RpcFailure(grpc.StatusCode.PERMISSION_DENIED, text, reason=reason)


def unimplemented(text: str, *, reason: str) -> RpcFailure:
    """The method is defined and does not work in this version or with this configuration."""
    return RpcFailure(grpc.StatusCode.UNIMPLEMENTED, text, reason=reason)


def deadline_exceeded(text: str, *, reason: str) -> RpcFailure:
    """The call took longer than it may."""
    return RpcFailure(grpc.StatusCode.DEADLINE_EXCEEDED, text, reason=reason)


def internal() -> RpcFailure:
    """A fault of ours. The text is fixed: what happened is in the log, and only there."""
    return RpcFailure(grpc.StatusCode.INTERNAL, "internal error", reason="INTERNAL")


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason that the server gave; empty if the error is not one of ours."""
    trailing = error.trailing_metadata() or grpc.aio.Metadata()
    details = trailing.get(status.DETAILS_FIELD, b"")
    return status.decode_reason(details) if isinstance(details, bytes) else ""
