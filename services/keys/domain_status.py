"""Of each domain, whether its mail is signed: what `gatepost keys status` and the metrics say.

Told of are the local domains of the configuration and every domain that has keys, or should.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from services.keys.keyring import Keyring, NoUsableKeyError


class DomainSigning(StrEnum):
    """What becomes of a domain's mail, as far as keys go."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    """No key signs and none should."""
    WAITING = "waiting"
    """It has to be signed and no key can."""


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """How the mail of a domain is signed."""

    domain: str
    local: bool
    signing: DomainSigning
    selectors: tuple[str, ...] = ()
    """Of the keys that sign."""
    problems: tuple[str, ...] = ()
    """For people, one line each."""


def domain_statuses(keyring: Keyring, local: Collection[str]) -> list[DomainStatus]:
    """All there is to tell, in the order of the domains' names."""
    return [
        _status(keyring, domain, local=domain in local)
        for domain in sorted({*local, *keyring.domains})
        if domain in local or keyring.concerns(domain)
    ]


def _status(keyring: Keyring, domain: str, *, local: bool) -> DomainStatus:
    try:
        signing = keyring.signing(domain)
    except NoUsableKeyError as error:
        why = f"mail waits: {error}; restore the key from a backup, activate another, or retire it"
        return DomainStatus(domain, local, DomainSigning.WAITING, problems=(why,))
    if signing.signers:
        selectors = tuple(signer.selector for signer in signing.signers)
        return DomainStatus(domain, local, DomainSigning.SIGNED, selectors, signing.faults)
    lack = "no key is active" if keyring.of_domain(domain) else "there is no key"
    problem = f"{lack}: mail goes out unsigned"
    return DomainStatus(domain, local, DomainSigning.UNSIGNED, problems=(problem,))
