"""Whether the world can see a key's record: every authoritative server is asked.

RFC 6376 §3.6.2. Receivers ask whichever server answers them first, so a record that one of them
lacks makes a part of the mail fail. "Visible" therefore means: all of them, with the right key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.common.dns import AllAnswers, Authority, RecordType, ServerAnswer, Status
from services.keys import key_record
from services.keys.key import Key


@dataclass(frozen=True, slots=True)
class ServerFinding:
    """What one server serves, judged."""

    server: str
    """Name and address."""
    published: bool
    answer: str
    """For people, one line."""
    definite: bool
    """Whether the server said so, rather than nothing that counts."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What all servers serve."""

    servers: tuple[ServerFinding, ...]
    problem: str = ""
    """Why not every server was asked; blank if all were."""

    @property
    def visible(self) -> bool:
        """Every authoritative server serves the right record."""
        return not self.problem and bool(self.servers) and all(s.published for s in self.servers)

    @property
    def denied(self) -> bool:
        """Some server said that it does not serve it: not merely a server that is silent."""
        return any(server.definite and not server.published for server in self.servers)

    @property
    def summary(self) -> str:
        """What is missing, one line; blank if nothing is."""
        found = [self.problem] if self.problem else []
        found += [f"{each.server}: {each.answer}" for each in self.servers if not each.published]
        return "; ".join(found)


async def check(authority: Authority, key: Key) -> Publication:
    """Ask for the record of `key`. Bounded by the authority's deadline, raises nothing."""
    answers = await authority.ask_all(key.record_name, RecordType.TXT)
    problems = "; ".join(dict.fromkeys(_problems(answers)))
    return Publication(tuple(_findings(key, answers)), problems)


def _problems(answers: AllAnswers) -> Iterator[str]:
    if answers.problem:
        yield answers.problem
    for alias in answers.aliases:
        yield from _problems(alias)


def _findings(key: Key, answers: AllAnswers) -> Iterator[ServerFinding]:
    """Those of the servers themselves, then those of the servers that aliases lead to."""
    for said in answers.servers:
        if said.alias:
            yield ServerFinding(said.server, True, f"an alias of {said.alias}", definite=True)
        else:
            yield _finding(key, said)
    for alias in answers.aliases:
        yield from _findings(key, alias)


def _finding(key: Key, said: ServerAnswer) -> ServerFinding:
    answer = said.answer
    if not answer.status.definite:
        return ServerFinding(said.server, False, answer.detail, definite=False)
    records = [record for record in answer.records if isinstance(record, bytes)]
    objection = key_record.objection(key, records)
    if objection:
        if answer.status is Status.NXDOMAIN:
            objection = "no such name"
        return ServerFinding(said.server, False, objection, definite=True)
    return ServerFinding(said.server, True, "the right record", definite=True)
