"""What the gRPC library logs of calls is an error, or is not said."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from services.common.rpc.server import RpcServer

LOGGER = "grpc._cython.cygrpc"


@pytest.mark.parametrize(
    ("error", "said"), [(asyncio.CancelledError(), False), (ValueError("wrong"), True)]
)
def test_a_call_that_is_given_up_is_no_error(
    error: BaseException,
    said: bool,
    caplog: pytest.LogCaptureFixture,
    expected_log: Callable[[str], None],
) -> None:
    assert RpcServer.__module__ == "services.common.rpc.server"  # which sees to that
    if said:
        expected_log("not handled")
    try:
        raise error
    except BaseException:
        logging.getLogger(LOGGER).exception("Exception not handled")
    assert ("not handled" in caplog.text) == said
