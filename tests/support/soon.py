"""That something happens soon, said on a machine that may stand still for a moment.

What is slow every time fails; what is slow now and then was kept waiting by somebody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

_TRIES = 5


async def soon(attempt: Callable[[], Awaitable[float]], *, seconds: float) -> None:
    """Try until an attempt says that it took less time than this. Raises `AssertionError`."""
    took = []
    for _ in range(_TRIES):
        took.append(await attempt())
        if took[-1] < seconds:
            return
    raise AssertionError(f"it took {took} s each time, not less than {seconds:g} s")
