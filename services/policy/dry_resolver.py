"""The resolver of dry runs: what production knows is used, what is learned here stays here.

A dry run is open to everybody, so it must neither fill production's cache nor take the places of
its look-ups; and it must see what production would see, so production's answers come first.
"""

from __future__ import annotations

from services.common.dns import Answer, RecordType, Resolver


class DryResolver:
    """A `Resolver` over two others."""

    def __init__(self, production: Resolver, own: Resolver) -> None:
        self._production = production
        self._own = own

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """See `Resolver.query`."""
        return self._production.cached(name, rdtype) or await self._own.query(name, rdtype)

    def cached(self, name: str, rdtype: RecordType) -> Answer | None:
        """See `Resolver.cached`."""
        return self._production.cached(name, rdtype) or self._own.cached(name, rdtype)
