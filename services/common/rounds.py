"""A moment in which more of the same kind can come, so that it leaves together.

What leaves a process costs a message, whatever is in it: system calls here, being woken there. One
that waits for two rounds of the event loop takes along what the sessions have to say that were
ready already. It takes no time that a clock would show while nobody else has anything to do, and
under load the processor is busy with those others meanwhile.
"""

from __future__ import annotations

import asyncio


async def a_moment() -> None:
    """Return after two rounds: the first brings in what has arrived at our sockets, and in the
    second those speak whom it has woken."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
