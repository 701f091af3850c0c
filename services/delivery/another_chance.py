"""Another chance for a next hop that is left alone: an operator wants mail tried now.

What this process and the shared knowledge hold against the next hop of a record is dropped. The
count of its failures stays: if it fails again it is left alone for longer. Another replica that
failed at it itself leaves it alone for as long as it meant to.
"""

from __future__ import annotations

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.config.source import ConfigSource
from services.delivery.destinations import Destinations
from services.delivery.route import route_of, submitting_domain
from services.delivery.slots import Slots


class AnotherChance:
    """Knows the next hops of records."""

    def __init__(self, source: ConfigSource, slots: Slots, destinations: Destinations) -> None:
        self._source = source
        self._slots = slots
        self._destinations = destinations

    async def give(self, record: QueuedMessage) -> None:
        """Let the next hop of a record be tried. Raises `StoreError`."""
        route = route_of(self._source.current, record.destination, submitting_domain(record))
        # In this order: what is shared is read every other second, and would count again.
        await self._destinations.forget_failing(route.key)
        self._slots.try_again(route.key)
