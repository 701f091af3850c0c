"""Ask a sender's mail exchange whether it would take a reply, within limits.

A callout lives as long as it needs, up to `policy.callout.timeout`, and is shared by all who ask
about the same address meanwhile. Whoever cannot wait so long is told that it cannot be told yet,
and the answer is there for the next mail.

Guarantees: at most `MAX_UNDER_WAY` at a time, `MAX_PER_DESTINATION` of them at one domain, and no
more than `policy.callout.rate` a minute at one domain; never a connection into a forbidden network.
Dry runs, which are open to everybody, have a few places of their own; their answers are not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import Counter, Histogram

from services.common.config.policy import Callout as Settings
from services.common.dns import Resolver
from services.common.log import ERROR, event
from services.common.mail.address import Mailbox
from services.policy.callout.dialogue import (
    MAX_LINE_OCTETS,
    Answer,
    Broken,
    Said,
    ask,
)
from services.policy.callout.exchanges import Host, NobodyTakesMail, NowhereToAsk, hosts_of
from services.policy.callout.memory import CalloutMemory, Known

MAX_UNDER_WAY = 100
MAX_DRY_UNDER_WAY = 8
MAX_PER_DESTINATION = 2
MAX_DESTINATIONS = 10_000
"""Domains whose rate is remembered."""

CALLOUTS = Counter(
    "gatepost_policy_callouts_total",
    "Questions about real senders, by what came of them.",
    ["result"],  # takes, refuses, unknown, remembered, limited
)
SECONDS = Histogram(
    "gatepost_policy_callout_seconds",
    "Time that a callout took.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
)

_log = logging.getLogger(__name__)


class Reachable(StrEnum):
    """Whether a sender would get a reply."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known about a sender."""

    reachable: Reachable
    reason: str
    host: str = ""
    """Who was asked: name and address."""
    reply: str = ""
    """What it answered, and to which command."""
    remembered: bool = False
    """The answer is one of before."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and with which means."""

    sender: Mailbox
    resolver: Resolver
    settings: Settings
    hostname: str
    dry_run: bool


class Callouts:
    """The callouts of this process. `close` at the end."""

    def __init__(
        self, memory: CalloutMemory, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._memory = memory
        self._under_way: dict[tuple[str, bool], asyncio.Task[Outcome]] = {}
        self._pace = _Pace(clock)

    async def ask(self, question: Question) -> Outcome:
        """What is known about the sender, or what asking brings. Raises nothing."""
        settings = question.settings
        known = await self._memory.recall(
            question.sender, positive=settings.positive_ttl, negative=settings.negative_ttl
        )
        if known is not None:
            self._count(question, "remembered")
            reachable = Reachable.YES if known.takes else Reachable.NO
            why = f"it said so at {known.asked:%Y-%m-%d %H:%M} UTC"
            return Outcome(reachable, why, known.host, known.reply, remembered=True)
        task = self._task(question)
        if task is None:
            self._count(question, "limited")
            return Outcome(Reachable.UNKNOWN, "too many questions just now")
        await asyncio.wait((task,))
        if task.cancelled():
            return Outcome(Reachable.UNKNOWN, "the service is stopping")
        return task.result()

    async def close(self) -> None:
        """End the callouts under way."""
        tasks = tuple(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, question: Question) -> asyncio.Task[Outcome] | None:
        key = (question.sender.key, question.dry_run)
        task = self._under_way.get(key)
        if task is not None:
            return task
        domain = question.sender.domain
        alike = [each for each in self._under_way if each[1] == question.dry_run]
        at_domain = sum(each[0].endswith(f"@{domain}") for each in alike)
        places = MAX_DRY_UNDER_WAY if question.dry_run else MAX_UNDER_WAY
        if len(alike) >= places or at_domain >= MAX_PER_DESTINATION:
            return None
        if not self._pace.allows(domain, question.settings.rate):
            return None
        task = asyncio.create_task(self._call(question), name=f"callout {domain}")
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return task

    async def _call(self, question: Question) -> Outcome:
        seconds = question.settings.timeout.total_seconds()
        try:
            with SECONDS.time():
                async with asyncio.timeout(seconds):
                    outcome = await _call(question)
        except TimeoutError:
            outcome = Outcome(Reachable.UNKNOWN, f"no answer within {seconds:g} s")
        except Exception:  # noqa: BLE001 - a fault of ours says nothing about the sender
            event(_log, ERROR, "callout failed", exc_info=True)
            outcome = Outcome(Reachable.UNKNOWN, "internal error")
        self._count(question, _RESULTS[outcome.reachable])
        if outcome.reachable is not Reachable.UNKNOWN and not question.dry_run:
            takes = outcome.reachable is Reachable.YES
            known = Known(takes, outcome.host, outcome.reply, self._memory.now())
            await self._memory.keep(question.sender, known)
        return outcome

    def _count(self, question: Question, result: str) -> None:
        if not question.dry_run:
            CALLOUTS.labels(result).inc()


_RESULTS = {Reachable.YES: "takes", Reachable.NO: "refuses", Reachable.UNKNOWN: "unknown"}


async def _call(question: Question) -> Outcome:
    """Ask one host after the other until one says something about the address."""
    domain = question.sender.domain
    try:
        hosts = await hosts_of(
            domain, question.resolver, allowed=question.settings.allowed_networks
        )
    except NobodyTakesMail as nobody:
        return Outcome(Reachable.NO, str(nobody))
    except NowhereToAsk as nowhere:
        return Outcome(Reachable.UNKNOWN, str(nowhere))
    outcome = Outcome(Reachable.UNKNOWN, "there is nobody to ask")
    for host in hosts:
        outcome = await _ask_host(host, question)
        if outcome.reachable is not Reachable.UNKNOWN:
            break
    return outcome


async def _ask_host(host: Host, question: Question) -> Outcome:
    shown = f"{host.name} [{host.address}]"
    try:
        said = await _converse(host, question)
    except (Broken, OSError) as error:
        reason = str(error) if isinstance(error, Broken) else _os_reason(error)
        return Outcome(Reachable.UNKNOWN, reason, shown)
    return Outcome(
        _REACHABLE[said.answer], _WORDS[said.answer], shown, f"{said.command}: {said.reply}"
    )


async def _converse(host: Host, question: Question) -> Said:
    reader, writer = await asyncio.open_connection(
        str(host.address), question.settings.port, limit=MAX_LINE_OCTETS
    )
    try:
        return await ask(reader, writer, question.sender, hostname=question.hostname)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _os_reason(error: OSError) -> str:
    return f"no connection ({error.strerror or type(error).__name__})"


_REACHABLE = {
    Answer.TAKES: Reachable.YES,
    Answer.REFUSES: Reachable.NO,
    Answer.DOES_NOT_SAY: Reachable.UNKNOWN,
}
_WORDS = {
    Answer.TAKES: "it would take a reply",
    Answer.REFUSES: "it would not take a reply",
    Answer.DOES_NOT_SAY: "it does not say",
}


class _Pace:
    """How often a domain was asked in the last minute; the longest unasked are forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()

    def allows(self, domain: str, rate: int) -> bool:
        """Whether one more question is within the rate; if so it counts."""
        now = self._clock()
        times = self._asked.setdefault(domain, deque())
        self._asked.move_to_end(domain)
        if len(self._asked) > MAX_DESTINATIONS:
            self._asked.popitem(last=False)
        while times and now - times[0] >= 60:
            times.popleft()
        if len(times) >= rate:
            return False
        times.append(now)
        return True
