"""What a check is: a name, a coroutine from facts to a finding, and the replies for its refusals.

A check decides nothing about the mail. It says what it found (`Finding`), and the configured
action does the rest (services/policy/verdict.py). A check never raises because of what a client or
a DNS server did, and it asks nobody but the parts in `Means`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from services.common.config.policy import Policy
from services.common.dns import Answer, RecordType, Resolver
from services.common.mail.printable import one_line
from services.common.mail.reply import Reply
from services.common.turns import Turns
from services.policy.action import Action
from services.policy.sender_list import NOBODY, SenderList

if TYPE_CHECKING:
    from services.policy.callout.callouts import Callouts

MAX_EVIDENCE_OCTETS = 1000
"""Of one value: a DNS record of 64 KB is evidence by its beginning."""

TEMPERROR = "temperror"
"""The result of every check that cannot tell just now (the word of RFC 8601)."""

CANNOT_TELL = Reply(451, "4.7.0", "Mail cannot be judged just now, please try again later")

_NAMES = {rdtype: f"dns.{rdtype.lower()}" for rdtype in RecordType}

S = TypeVar("S", contravariant=True)


class Evidence(NamedTuple):
    """One fact that a check looked at."""

    name: str
    value: str


class Standing(StrEnum):
    """What a finding means for the mail."""

    CLEAR = "clear"
    OBJECTS = "objects"
    UNKNOWN = "unknown"
    """It cannot be told just now; `policy.on_error` decides."""
    VOUCHES = "vouches"
    """The mail is taken although others object."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: its result in the words of its RFC, and why."""

    result: str
    standing: Standing
    explanation: str
    """One sentence for people."""
    evidence: tuple[Evidence, ...] = ()
    action: Action | None = None
    """What is to be done instead of what is configured for the check."""


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What a check may use. There is one of them for each configuration."""

    resolver: Resolver
    policy: Policy
    hostname: str
    """Our name, for macros and for greeting others."""
    callouts: Callouts | None = None
    dry_run: bool = False
    allow: SenderList = NOBODY
    deny: SenderList = NOBODY
    turns: Turns = field(default_factory=Turns)
    """Taken by what has to wait for others anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[S]):
    """A row of the table of checks."""

    name: str
    """As its setting in `policy.actions`."""
    find: Callable[[S, Means], Coroutine[Any, Any, Finding]]
    refusal: Reply
    """The reply when it objects and the action is `refuse`."""
    refusals: Mapping[str, Reply] = field(default_factory=dict)
    """Other replies for some results."""
    deferral: Reply = CANNOT_TELL
    """The reply when it cannot tell and `on_error` is `defer`."""
    only_dns: bool = True
    """It waits for nothing but DNS, so that it can be tried at once with what is known already."""
    applies: Callable[[S, Means], bool] | None = None
    """Whether it has anything to say about this subject; None: always."""
    fixed_action: Action | None = None
    """What is done when it objects, if that is not for the configuration to say."""
    reconsider: Callable[[Finding, Policy], Finding] | None = None
    """What a recorded finding means under another configuration, where that can differ."""
    vouching_result: str = ""
    """The result with which it vouches for the mail, if there is one."""
    only_if_it_matters: bool = False
    """It is a burden on others and runs only where its action is not `accept`."""

    def refusal_for(self, result: str) -> Reply:
        """The reply when this result refuses the mail."""
        return self.refusals.get(result, self.refusal)


def clear(result: str, explanation: str, *evidence: Evidence) -> Finding:
    """Nothing to object to."""
    return Finding(result, Standing.CLEAR, explanation, evidence)


def objects(result: str, explanation: str, *evidence: Evidence) -> Finding:
    """The check objects."""
    return Finding(result, Standing.OBJECTS, explanation, evidence)


def unknown(explanation: str, *evidence: Evidence) -> Finding:
    """It cannot be told just now."""
    return Finding(TEMPERROR, Standing.UNKNOWN, explanation, evidence)


def evidence(name: str, value: object) -> Evidence:
    """A fact, made printable and bounded: most of them were chosen by strangers."""
    return Evidence(name, one_line(str(value), limit=MAX_EVIDENCE_OCTETS))


def dns_evidence(answer: Answer) -> Evidence:
    """A lookup and what it brought: `dns.mx`, "example.org: 10 mx.example.org"."""
    return evidence(_NAMES[answer.rdtype], answer.summary)


async def look_up(resolver: Resolver, name: str, rdtype: RecordType) -> Answer:
    """An answer, without a turn of the event loop when it is known already."""
    return resolver.cached(name, rdtype) or await resolver.query(name, rdtype)


async def look_up_all(
    resolver: Resolver, names: Iterable[str], rdtype: RecordType
) -> dict[str, Answer]:
    """The answers in the order of their names, side by side; no tasks for what is known."""
    found = {name: resolver.cached(name, rdtype) for name in names}
    missing = [name for name, known in found.items() if known is None]
    if missing:
        asked = await asyncio.gather(*(resolver.query(name, rdtype) for name in missing))
        found |= zip(missing, asked, strict=True)
    return {name: answer for name, answer in found.items() if answer is not None}
