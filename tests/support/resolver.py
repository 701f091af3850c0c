"""The resolver double: answers from a table, at once, without a network.

    resolver = FakeResolver(
        {("example.test", "MX"): ["10 mx.example.test"], ("mx.example.test", "A"): ["192.0.2.1"]},
        temporary={"broken.test", ("example.test", "TXT")},
        authentic={"example.test"},
    )

It answers as the real one would: aliases are followed, a loop of them is TEMPORARY, a name that is
not in the table does not exist, a string that is no name neither. See zone.py for the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.common.dns import Answer, InvalidNameError, RecordType, Resolver, Status, canonical
from services.common.dns.name import printable
from services.common.dns.reply import record_of
from tests.support.zone import Key, NameOrKey, Zone, listed, rdata_of, spelling

TTL_SECONDS = 300


class FakeResolver(Resolver):
    """Answers from a table. What it is made with may be changed between queries."""

    def __init__(
        self,
        records: Mapping[Key, Iterable[str]] | None = None,
        *,
        temporary: Iterable[NameOrKey] = (),
        authentic: Iterable[NameOrKey] = (),
    ) -> None:
        self.records = Zone(records)
        self.temporary = set(temporary)
        self.authentic = set(authentic)
        self.queries: list[tuple[str, RecordType]] = []
        """What was asked, in order, as it was spelled."""

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """See `Resolver.query`."""
        self.queries.append((name, rdtype))
        return self._answer(name, rdtype)

    def cached(self, name: str, rdtype: RecordType) -> Answer | None:
        """The answer, if this name and type were asked for before."""
        asked = any(spelling(name) == spelling(n) and rdtype is t for n, t in self.queries)
        return self._answer(name, rdtype) if asked else None

    def _answer(self, name: str, rdtype: RecordType) -> Answer:
        try:
            asked = canonical(name)
        except InvalidNameError as error:
            shown = printable(name, limit=100)
            return Answer(shown, rdtype, Status.NXDOMAIN, detail=f"not a domain name, {error}")
        way = self.records.way(asked, rdtype)
        names = {asked, *(step.owner for step in way.steps), way.last}
        if way.loops or any(listed(self.temporary, each, rdtype) for each in names):
            return self._failure(asked, rdtype, Status.TEMPORARY)
        if not way.found:
            return self._failure(asked, rdtype, Status.NO_DATA if way.exists else Status.NXDOMAIN)
        return Answer(
            asked,
            rdtype,
            Status.OK,
            tuple(record_of(rdata_of(rdtype, value)) for value in way.steps[-1].values),
            canonical=way.last,
            authentic=all(listed(self.authentic, step.owner, rdtype) for step in way.steps),
            ttl=TTL_SECONDS,
        )

    def _failure(self, name: str, rdtype: RecordType, status: Status) -> Answer:
        return Answer(
            name,
            rdtype,
            status,
            authentic=listed(self.authentic, name, rdtype),
            ttl=0 if status is Status.TEMPORARY else TTL_SECONDS,
            detail=f"{rdtype} {name}: {status}, says the table",
        )
