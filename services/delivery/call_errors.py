"""What the store and the operations raise, as the status of a call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from services.common.jetstream import StoreError
from services.common.rpc.errors import failed_precondition, unavailable
from services.delivery.operations import NotPossible


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise `RpcFailure` instead of what the store and the operations raise."""
    try:
        yield
    except StoreError as error:
        raise unavailable(f"the queue does not answer: {error}", reason="QUEUE_AWAY") from error
    except NotPossible as error:
        raise failed_precondition(str(error), reason="NOT_POSSIBLE_NOW") from error
