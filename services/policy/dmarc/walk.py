"""The DNS Tree Walk: RFC 9989 §4.10, at most eight questions however long the name.

A question that cannot be answered just now ends the walk: nothing that depends on it can be told.
What does not is the policy of a domain that has a record itself (§4.10.2 names what needs no walk).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.common.dns import Answer, RecordType, Resolver, Status
from services.policy.checks.check import look_up
from services.policy.dmarc.record import Record, parse_record

MAX_LABELS = 8


class CannotTell(Exception):
    """A record cannot be looked up just now."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.detail)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Walk:
    """What was found from a domain upwards, the longest name first."""

    start: str
    found: tuple[tuple[str, Record], ...]
    answers: tuple[Answer, ...]
    unknown: Answer | None = None
    """The question that ended the walk, if it did not end by itself."""

    @property
    def organizational_domain(self) -> str:
        """§4.10.2: the domain at the top of what has one owner. Raises `CannotTell`."""
        if self.unknown is not None:
            raise CannotTell(self.unknown)
        for domain, record in self.found:
            if record.psd == "n":
                return domain
            if record.psd == "y" and domain != self.start:
                return _one_below(domain, self.start)
        return self.found[-1][0] if self.found else self.start

    @property
    def policy(self) -> tuple[str, Record] | None:
        """§4.10.1: whose record applies: the domain's own, its organization's, its suffix's."""
        records = dict(self.found)
        if self.start in records:
            return self.start, records[self.start]
        organization = self.organizational_domain
        if organization in records:
            return organization, records[organization]
        suffix = [(domain, record) for domain, record in self.found if record.psd == "y"]
        return suffix[0] if suffix else None


async def walk(domain: str, resolver: Resolver) -> Walk:
    """Look for records from a domain (lower-case A-labels) upwards.

    Raises `CannotTell` where a walk has to end before the domain's own record is found.
    """
    found: list[tuple[str, Record]] = []
    answers: list[Answer] = []
    for name in targets(domain):
        answer = await look_up(resolver, f"_dmarc.{name}", RecordType.TXT)
        if answer.status is Status.TEMPORARY:
            if domain not in dict(found):
                raise CannotTell(answer)
            return Walk(domain, tuple(found), (*answers, answer), unknown=answer)
        texts = [text for text in answer.records if isinstance(text, bytes)]
        records = [record for text in texts if (record := parse_record(text)) is not None]
        # Several are none.
        if len(records) == 1:
            answers.append(answer)
            found.append((name, records[0]))
            if records[0].psd != "u":
                break
    return Walk(domain, tuple(found), tuple(answers))


def targets(domain: str) -> Iterator[str]:
    """The names to ask at, from the domain itself to its top-level domain."""
    labels = domain.split(".")
    yield domain
    rest = labels[1:] if len(labels) < MAX_LABELS else labels[-(MAX_LABELS - 1) :]
    for start in range(len(rest)):
        yield ".".join(rest[start:])


def _one_below(domain: str, start: str) -> str:
    """The domain one label below `domain`, on the way to `start`."""
    labels = start.split(".")
    return ".".join(labels[-(domain.count(".") + 2) :])
