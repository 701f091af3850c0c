"""What a call is counted as that its client gave up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.common.rpc.auth import Access
from services.common.rpc.guard import Guard, Limits
from services.common.rpc.tokens import Tokens, ensure_tokens


class Remaining:
    """The context of a call, as far as it tells until when the client waits."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds


@pytest.mark.parametrize(
    ("left", "code"),
    [
        (0.0, "DEADLINE_EXCEEDED"),
        (0.1, "DEADLINE_EXCEEDED"),  # the client's deadline, which was rounded up on its way
        (0.3, "CANCELLED"),
        (None, "CANCELLED"),
    ],
)
async def test_a_call_given_up_at_its_deadline_is_told_from_one_given_up_before(
    tmp_path: Path, left: float | None, code: str
) -> None:
    async def given_up(_: Any, __: Any) -> None:
        raise asyncio.CancelledError

    ensure_tokens(tmp_path)
    method = f"test.Guard/Left{left}"
    call = Guard(Access(Tokens(tmp_path)), Limits()).asked(method, given_up)
    context: Any = Remaining(left)
    with pytest.raises(asyncio.CancelledError):
        await call(None, context)
    assert REGISTRY.get_sample_value(
        "gatepost_rpc_requests_total", {"method": method, "code": code}
    )
