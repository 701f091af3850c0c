"""Whether a mail is its author's own: RFC 9989 §4.4 (alignment) and §5.3 (what receivers do).

Results are those registered for DMARC: `pass`, `fail`, `none` (no record), `permerror` (a record
that makes no sense), `temperror`. A mail with authors in several domains is judged for each of
them, and the strictest of the failures counts (§11.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.common.dns import Answer, RecordType, Resolver, Status
from services.policy.checks.check import look_up
from services.policy.dmarc.record import Preference, Record, preference_for
from services.policy.dmarc.walk import CannotTell, Walk, walk
from services.policy.identifiers import Identifier, Identifiers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What DMARC came to for one author's domain."""

    result: str
    domain: str
    reason: str
    preference: Preference = Preference.NONE
    """What is asked for mail that fails."""
    published_at: str = ""
    """The domain whose record applies."""
    organization: str = ""
    aligned: str = ""
    """What passed: the method and the domain, `dkim=example.org`."""
    answers: tuple[Answer, ...] = ()


async def evaluate(domain: str, identifiers: Identifiers, resolver: Resolver) -> Outcome:
    """Judge a mail whose author is in this domain (lower-case A-labels)."""
    try:
        return await _evaluate(domain, identifiers, resolver)
    except CannotTell as cannot:
        why = "a DMARC record cannot be looked up just now"
        return Outcome("temperror", domain, why, answers=(cannot.answer,))


async def _evaluate(domain: str, identifiers: Identifiers, resolver: Resolver) -> Outcome:
    author = await walk(domain, resolver)
    applies = author.policy
    if applies is None:
        return Outcome("none", domain, f"{domain} publishes no DMARC record")
    published_at, record = applies
    so_far = _Facts(domain, published_at, author)
    if record.is_broken:
        return so_far.outcome("permerror", f"the DMARC record of {published_at} makes no sense")
    aligned = await _aligned(author, record, identifiers, resolver)
    if aligned is not None:
        why = f"the {aligned.method.upper()} domain {aligned.domain} is aligned with {domain}"
        return replace(so_far.outcome("pass", why), aligned=str(aligned))
    if identifiers.incomplete:
        return so_far.outcome("temperror", "SPF or DKIM cannot be told just now")
    exists = published_at == domain or await _exists(domain, record, resolver)
    preference = preference_for(record, is_own=published_at == domain, exists=exists)
    why = f"nothing that was authenticated is aligned with {domain}"
    return so_far.outcome("fail", why, preference)


@dataclass(frozen=True, slots=True)
class _Facts:
    domain: str
    published_at: str
    author: Walk

    def outcome(
        self, result: str, reason: str, preference: Preference = Preference.NONE
    ) -> Outcome:
        return Outcome(
            result,
            self.domain,
            reason,
            preference,
            self.published_at,
            "" if self.author.unknown else self.author.organizational_domain,
            answers=self.author.answers,
        )


async def _aligned(
    author: Walk, record: Record, identifiers: Identifiers, resolver: Resolver
) -> Identifier | None:
    """What is aligned with the author's domain; None if nothing is.

    Raises `CannotTell` only if it depends on what cannot be told (§4.10.2, §5.3.6).
    """
    strict = {"spf": record.strict_spf, "dkim": record.strict_dkim}
    for identifier in identifiers.named:
        if identifier.domain == author.start:
            return identifier
    doubt: CannotTell | None = None
    for identifier in identifiers.named:
        if strict[identifier.method]:
            continue
        try:
            if await _is_of_same_organization(identifier.domain, author, resolver):
                return identifier
        except CannotTell as cannot:
            doubt = cannot
    if doubt is not None:
        raise doubt
    return None


async def _is_of_same_organization(domain: str, author: Walk, resolver: Resolver) -> bool:
    if domain.rpartition(".")[2] != author.start.rpartition(".")[2]:
        return False
    organization = author.organizational_domain
    if not (domain == organization or domain.endswith(f".{organization}")):
        return False
    return (await walk(domain, resolver)).organizational_domain == organization


async def _exists(domain: str, record: Record, resolver: Resolver) -> bool:
    """RFC 9989 §3.2.12: a domain does not exist if the DNS says so (NXDOMAIN)."""
    if record.nonexistent is None:
        return True
    answer = await look_up(resolver, domain, RecordType.A)
    if answer.status is Status.TEMPORARY:
        raise CannotTell(answer)
    return answer.status is not Status.NXDOMAIN


def strictest(outcomes: Sequence[Outcome]) -> Outcome:
    """Of several authors' domains the one that counts: a failure, then a doubt, then a pass."""
    return max(outcomes, key=lambda outcome: (_WEIGHTS[outcome.result], outcome.preference))


_WEIGHTS = {"fail": 4, "temperror": 3, "permerror": 2, "none": 1, "pass": 0}
