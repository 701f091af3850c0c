"""The reason of an error on the wire, and what is made of one that is not ours."""

import grpc
import grpc.aio
import pytest

from services.common.rpc.auth import (
    OPEN,
    VIEW,
    Access,
    Roles,
    methods,
)
from services.common.rpc.errors import TEXT_LIMIT_CHARS, not_found, reason_of
from services.common.rpc.status import DETAILS_FIELD, decode_reason, encode


def test_encoded_as_google_defines_it() -> None:
    """Octet by octet, since the package with the real definition is no dependency of ours."""
    text = "x" * 200
    info = b"\x0a\x01R\x12\x08gatepost"
    name = b"type.googleapis.com/google.rpc.ErrorInfo"
    detail = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(info)]) + info
    assert encode(grpc.StatusCode.NOT_FOUND, text, "R") == (
        b"\x08\x05\x12\xc8\x01" + text.encode() + b"\x1a" + bytes([len(detail)]) + detail
    )


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (encode(grpc.StatusCode.NOT_FOUND, "no key", "KEY_UNKNOWN"), "KEY_UNKNOWN"),
        (b"", ""),
        (b"\x08\x05", ""),
        (b"\xff\xff\xff", ""),
        (
            encode(grpc.StatusCode.NOT_FOUND, "x", "R").replace(b"gatepost", b"elsewher"),
            "",
        ),
    ],
)
def test_reason(encoded: bytes, reason: str) -> None:
    assert decode_reason(encoded) == reason
    trailing = grpc.aio.Metadata((DETAILS_FIELD, encoded))
    assert reason_of(grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, None, trailing)) == reason


def test_error_without_trailing_metadata_has_no_reason() -> None:
    assert reason_of(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE)) == ""


def test_long_text_is_cut() -> None:
    assert len(not_found("x" * 10_000, reason="R").text) == TEXT_LIMIT_CHARS


class _NoTokens:
    def roles(self, token: str) -> Roles:
        return frozenset()


def test_method_in_no_table_is_closed() -> None:
    access = Access(_NoTokens())
    access.allow(methods("gatepost.keys.v1.KeyService", GetKey=VIEW))
    assert access.rule("/gatepost.keys.v1.KeyService/GetKey") == VIEW
    assert access.rule("/gatepost.keys.v1.KeyService/Other") == frozenset()
    with pytest.raises(ValueError, match="GetKey"):
        access.allow(methods("gatepost.keys.v1.KeyService", GetKey=OPEN))
