"""What callers are told of a store that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.common.rpc.errors import aborted, unavailable
from services.keys.store import KeyChangedError, StoreUnavailableError


@contextmanager
def store_failures() -> Iterator[None]:
    """Turn errors of the key store into statuses of the call; `KeyExistsError` passes."""
    try:
        yield
    except StoreUnavailableError as error:
        raise unavailable(str(error), reason="STORE_UNAVAILABLE") from error
    except KeyChangedError as error:
        text = f"{error}; look at the key and try again"
        raise aborted(text, reason="KEY_CHANGED") from error
