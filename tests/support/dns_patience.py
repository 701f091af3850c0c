"""Attempts at DNS servers that are given up sooner than the resolver would.

For tests about servers that do not answer: where those that do have all the time of the resolver's
settings, a machine with much to do makes no silent servers of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from services.common.dns import exchange
from services.common.dns.servers import Server

SOON_S: Final = 0.2


def give_up_soon(monkeypatch: pytest.MonkeyPatch, when: Callable[[Server], bool]) -> None:
    """Wait for an answer no longer than `SOON_S` in every attempt that `when` is true for."""
    ask = exchange.ask

    async def impatient(server: Server, *arguments: Any, seconds: float, **named: Any) -> Any:
        patience = SOON_S if when(server) else seconds
        return await ask(server, *arguments, seconds=patience, **named)

    monkeypatch.setattr(exchange, "ask", impatient)
