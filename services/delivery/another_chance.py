"""Another chance for a next hop that is left alone: an operator wants mail tried now.

What this process and the shared knowledge hold against the next hop of a record is dropped, and
other replicas drop what they hold when they read of it. The count of its failures stays: if it
fails again it is left alone for longer.
"""

from __future__ import annotations

from datetime import datetime

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.config.source import ConfigSource
from services.delivery.destinations import Destinations
from services.delivery.route import route_of, submitting_domain


class AnotherChance:
    """Knows the next hops of records."""

    def __init__(self, source: ConfigSource, destinations: Destinations) -> None:
        self._source = source
        self._destinations = destinations

    async def give(self, record: QueuedMessage) -> datetime | None:
        """Let the next hop of a record be tried. Returns when all replicas have heard of it, if
        that is not now. Raises `StoreError`."""
        route = route_of(self._source.current, record.destination, submitting_domain(record))
        return await self._destinations.forget_failing(route.key)
