"""What is slow every time is told from what is slow now and then."""

import pytest

from tests.support.soon import soon


async def took(*each: float) -> None:
    """Attempts that take so many seconds, one after the other, against a limit of one."""
    left = iter(each)

    async def attempt() -> float:
        return next(left)

    await soon(attempt, seconds=1)


async def test_one_that_is_fast_is_enough() -> None:
    await took(0.5)
    await took(7, 1, 0.9)


async def test_what_is_slow_every_time_is_slow() -> None:
    with pytest.raises(AssertionError, match="not less than 1 s"):
        await took(2, 1, 3, 1.5, 9)
