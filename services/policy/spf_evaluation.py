"""SPF (RFC 7208) on pyspf, fed from our own resolver. The only module that knows pyspf.

pyspf asks for records in the middle of its work and would block. Here it never asks: it runs over
the answers at hand, and where one is missing it stops, the answer is fetched without blocking, and
it runs again from the start. A run takes microseconds, and what a record names literally is fetched
together beforehand, so a tree of includes takes a few rounds.

Guarantees: ten terms that look names up and two void lookups (§4.6.4), ten MX and ten PTR names; a
record is at most `MAX_RECORD_OCTETS` and all of them `MAX_TOTAL_OCTETS`, since the library's parser
takes time that grows with the square of a term (Deviation: larger ones are a permerror). Nothing
but `SpfOutcome` comes out; whatever the library trips over is a temperror and a log line.
The total deadline is the caller's. The explanation is looked up only for a fail (§6.2).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

import spf

from services.common.dns import Answer, MxRecord, RecordType, Resolver, Status
from services.common.log import WARNING, event
from services.common.turns import Turns
from services.policy.checks.check import Evidence, dns_evidence, evidence
from services.policy.spf_memory import SpfMemory

MAX_RECORD_OCTETS = 4096
MAX_TOTAL_OCTETS = 16 * 1024
MAX_ROUNDS = 300
"""Ten terms, each with ten exchanges, and turns for the terms; reached only by a fault of ours."""

MAX_TERMS_IN_TURN = 50
"""Each takes some hundredths of a millisecond to read; others wait so long."""

_MAX_NAMES = 10  # RFC 7208 §4.6.4, for MX and PTR alike
# Look-ups made ahead in one evaluation. Twice what a record may need; more would let a record make
# us ask for names that its evaluation never reaches.
_MAX_AHEAD = 20
_LONG_LABEL = re.compile(rb"[0-9A-Za-z-]{64}")
_SPF_RECORD = re.compile(rb"v=spf1(?: |$)", re.IGNORECASE)
_LOOKS_UP = re.compile(r"%\{p", re.IGNORECASE)
_LITERAL_TERM = re.compile(
    r"[-+?~]?(?P<term>include|redirect|a|mx|exists)[:=](?P<name>[0-9a-z._-]+)(?:/[0-9/]*)?",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)

_memory: SpfMemory[SpfOutcome] = SpfMemory()

# Reading terms is most of the work, and big senders' records come with every other mail.
_MAX_TERMS = 10_000
_Terms: TypeAlias = dict[tuple[str, str, str], tuple[object, ...]]
_terms: _Terms = {}

_Key = tuple[str, RecordType]


@dataclass(frozen=True, slots=True)
class SpfRequest:
    """The arguments of check_host() (RFC 7208 §4.1) and what macros need."""

    client: str
    """The client's IP address."""
    local_part: str
    domain: str
    helo: str
    receiver: str
    """Our name."""


@dataclass(frozen=True)
class SpfOutcome:
    """What check_host() came to."""

    result: str
    """`none`, `neutral`, `pass`, `fail`, `softfail`, `temperror` or `permerror`."""
    problem: str = ""
    """For permerror and temperror: what is wrong, in a few words."""
    mechanism: str = ""
    """The term of the domain's own record that matched; blank when none did."""
    explanation: str = ""
    """For fail: what the domain's `exp=` says, in its own words."""
    lookups: int = 0
    void_lookups: int = 0
    answers: tuple[Answer, ...] = ()
    """What was looked up, in order."""

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """What was read and found. Made once, since outcomes are remembered."""
        facts = [dns_evidence(answer) for answer in self.answers]
        if self.mechanism:
            facts.append(evidence("spf.mechanism", self.mechanism))
        if self.explanation:
            facts.append(evidence("spf.explanation", self.explanation))
        if self.problem:
            facts.append(evidence("spf.problem", self.problem))
        if self.lookups:
            facts.append(evidence("spf.lookups", self.lookups))
        if self.void_lookups:
            facts.append(evidence("spf.void_lookups", self.void_lookups))
        return tuple(facts)


async def check_host(
    request: SpfRequest,
    resolver: Resolver,
    *,
    remember: bool = True,
    turns: Turns | None = None,
) -> SpfOutcome:
    """Evaluate the policy of a domain. Raises nothing but CancelledError.

    `remember` is whether the outcome may take somebody's place in our memory; a long evaluation
    takes `turns` with others.
    """
    if not _is_multi_label(request.domain):
        return SpfOutcome("none")
    key = (request.client, request.domain)
    known, first = _memory.recall(key, resolver)
    if known is not None:
        return known
    outcome = await _evaluate(request, resolver, first, turns or Turns())
    # A domain in U-labels has another name in its answers.
    if remember and request.domain.isascii():
        _memory.keep(key, outcome, outcome.answers)
    return outcome


async def _evaluate(
    request: SpfRequest, resolver: Resolver, first: Iterable[Answer], turns: Turns
) -> SpfOutcome:
    """Run until nothing is missing, beginning with these answers."""
    answers: dict[_Key, Answer] = {(answer.name, answer.rdtype): answer for answer in first}
    terms: _Terms = {}
    ahead: set[_Key] = set()
    for _ in range(MAX_ROUNDS):
        run = _Run(request, answers, terms, resolver)
        try:
            outcome = run.outcome()
        except _Missing as missing:
            answer = await resolver.query(*missing.key)
            answers[missing.key] = answer
            await _look_ahead(answer, RecordType(run.A), ahead, resolver)
        except _Pause:
            await turns.next()
        except Exception as error:  # noqa: BLE001 - a library over a stranger's text
            event(_log, WARNING, "SPF failed unexpectedly", domain=request.domain, exc_info=True)
            return SpfOutcome("temperror", f"internal error ({type(error).__name__})")
        else:
            return outcome
    return SpfOutcome("temperror", "too many lookups")


def _is_multi_label(domain: str) -> bool:
    """RFC 7208 §4.3: anything but a multi-label domain name has no policy."""
    labels = domain.removesuffix(".").split(".")
    fit = all(0 < len(label) < 64 for label in labels)
    return len(labels) > 1 and fit and len(domain) <= 254 and not domain.startswith("[")


class _Missing(Exception):
    """A run cannot go on without this answer."""

    def __init__(self, key: _Key) -> None:
        super().__init__(key)
        self.key = key


class _Pause(Exception):
    """A run has read as many terms as there is time for in one turn. The next begins with them."""


class _LateExplanation(str):
    """The name of an explanation's record, in place of the text until it is known to be needed."""

    __slots__ = ("domain",)
    domain: str


class _Run(spf.query):  # type: ignore[misc]  # pyspf has no types
    """One run over the answers at hand."""

    def __init__(
        self,
        request: SpfRequest,
        answers: dict[_Key, Answer],
        terms: _Terms,
        resolver: Resolver,
    ) -> None:
        sender = f"{request.local_part}@{request.domain}"
        super().__init__(i=request.client, s=sender, h=request.helo, receiver=request.receiver)
        # pyspf splits at the first @, and a quoted local part may hold one.
        self.l, self.o, self.d = request.local_part or "postmaster", request.domain, request.domain
        self._answers = answers
        self._known_terms = terms
        self._read_terms = 0
        self._resolver = resolver
        self._octets = 0

    def outcome(self) -> SpfOutcome:
        """Raises `_Missing`."""
        result, _, text = self.check()
        explanation = ""
        if result == "fail" and isinstance(text, _LateExplanation):
            explanation = self._explain(text)
        failed = result in ("temperror", "permerror")
        return SpfOutcome(
            result,
            problem=text if failed else "",
            mechanism=self.mechanism or "" if not failed else "",
            explanation=explanation,
            lookups=self.lookups,
            void_lookups=self.void_lookups,
            answers=tuple(self._answers.values()),
        )

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> list[object]:
        name = name.removesuffix(".").lower()
        if not name or any(not 0 < len(label) < 64 for label in name.split(".")):
            return []
        answer = self._answer(name, RecordType(qtype))
        if answer.status is Status.TEMPORARY:
            raise spf.TempError(f"DNS {answer.detail}")
        if not answer.records and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return [_value(record) for record in answer.records]

    def dns_spf(self, domain: str) -> str | None:
        record: str | None = super().dns_spf(domain)
        if record is not None:
            self._octets += len(record)
            problem = _size_problem(record.encode(), self._octets)
            if problem:
                raise spf.PermError(problem)
        return record

    def validate_mechanism(self, mech: str) -> tuple[object, ...]:
        """What a term says. Without macros that is always the same for a domain and a family; with
        macros it is in one evaluation, except for `p`, which looks names up."""
        if _LOOKS_UP.search(mech):
            read: tuple[object, ...] = super().validate_mechanism(mech)
            return read
        key = (mech, self.d, self.v)
        known = self._known_terms.get(key) or _terms.get(key)
        if known is None:
            if self._read_terms >= MAX_TERMS_IN_TURN:
                raise _Pause
            self._read_terms += 1
            known = super().validate_mechanism(mech)
            self._known_terms[key] = known
            if "%" not in mech:
                if len(_terms) >= _MAX_TERMS:
                    _terms.clear()
                _terms[key] = known
        return known

    def cidrmatch(self, ipaddrs: Iterable[str], n: int) -> bool:
        """Whether the client is in one of these networks."""
        try:
            return any(self.ipaddr in _network(address, n) for address in ipaddrs)
        except ValueError as error:
            raise spf.PermError(str(error)) from error

    def validated_ptrs(self) -> list[str]:
        """RFC 7208 §5.5: those of ten names that lead back. What cannot be looked up does not."""
        try:
            names = self.dns_ptr(self.i)[:_MAX_NAMES]
        except spf.TempError:
            return []
        return [name for name in names if self._leads_back(name)]

    def get_explanation(self, spec: str) -> str:
        """Called before anything is evaluated; the look-up waits until there is a fail."""
        late = _LateExplanation(spec)
        late.domain = self.d
        return late

    def _leads_back(self, name: str) -> bool:
        try:
            return bool(self.cidrmatch(self.dns_a(name, self.A), self.cidrmax))
        except (spf.TempError, spf.PermError):
            return False

    def _explain(self, late: _LateExplanation) -> str:
        """RFC 7208 §6.2: whatever is wrong with an explanation, there is then none."""
        self.d = late.domain
        try:
            texts = self.dns_txt(str(late), ignore_void=True)
            if len(texts) != 1 or len(texts[0]) > MAX_RECORD_OCTETS:
                return ""
            return str(self.expand(texts[0].decode("ascii"), stripdot=False))
        except (spf.TempError, spf.PermError, UnicodeDecodeError):
            return ""

    def _answer(self, name: str, rdtype: RecordType) -> Answer:
        key = (name, rdtype)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._resolver.cached(name, rdtype)
            if answer is None:
                raise _Missing(key)
            self._answers[key] = answer
        return answer


@lru_cache(maxsize=4096)
def _network(address: str, prefix: int) -> IPv4Network | IPv6Network:
    return ip_network(address).supernet(new_prefix=prefix)


def _size_problem(record: bytes, total: int) -> str:
    if len(record) > MAX_RECORD_OCTETS or total > MAX_TOTAL_OCTETS:
        return "The records are too large"
    # Nothing that is longer can be a label; the library would search it in quadratic time.
    if _LONG_LABEL.search(record):
        return "A label is longer than 63 octets"
    return ""


def _value(record: object) -> object:
    """A record as pyspf's own DNS adapters give it."""
    if isinstance(record, bytes):
        return (record,)
    if isinstance(record, MxRecord):
        return record.preference, record.exchange
    return str(record)


async def _look_ahead(
    answer: Answer, family: RecordType, ahead: set[_Key], resolver: Resolver
) -> None:
    """Ask at once for what an answer names. The evaluation finds it in the resolver's cache."""
    named = [key for key in _named_by(answer, family) if key not in ahead]
    new = named[: _MAX_AHEAD - len(ahead)]
    ahead.update(new)
    if new:
        await asyncio.gather(*(resolver.query(*key) for key in new))


def _named_by(answer: Answer, family: RecordType) -> Iterable[_Key]:
    """The questions that an answer leads to, as far as they can be known without evaluating it."""
    if answer.rdtype is RecordType.MX and len(answer.records) <= _MAX_NAMES:
        found = [record for record in answer.records if isinstance(record, MxRecord)]
        return [(record.exchange, family) for record in found if not record.is_null]
    if answer.rdtype is RecordType.PTR:
        return [(str(name), family) for name in answer.records[:_MAX_NAMES]]
    if answer.rdtype is RecordType.TXT:
        return list(_literal_terms(answer, family))
    return ()


def _literal_terms(answer: Answer, family: RecordType) -> Iterator[_Key]:
    types = {
        "include": RecordType.TXT,
        "redirect": RecordType.TXT,
        "a": family,
        "mx": RecordType.MX,
        "exists": RecordType.A,
    }
    for record in answer.records:
        if not isinstance(record, bytes) or not _SPF_RECORD.match(record):
            continue
        if _size_problem(record, 0):
            continue
        for word in record.decode("ascii", errors="replace").split(" "):
            match = _LITERAL_TERM.fullmatch(word)
            if match:
                yield match["name"].lower().removesuffix("."), types[match["term"].lower()]
