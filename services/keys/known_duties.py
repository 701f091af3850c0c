"""The register of the domains whose mail has to be signed, as this process knows it.

What was known stays known: a line that vanishes from the register, or a register that cannot be
read, takes no duty away; the line is written again. Only what the register says of a domain counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from services.common.log import ERROR, INFO, event
from services.keys.duty import Duty
from services.keys.store import Register

_log = logging.getLogger(__name__)

NONE = Duty()


class KnownDuties:
    """Duties by domain. Belongs to the event loop's thread; `domains` may be read from any."""

    def __init__(self) -> None:
        self._held: dict[str, Duty] = {}
        self._kept: dict[str, Duty] = {}
        """What the register said last."""
        self.problem = ""
        """Why the register cannot be read; blank if it can."""

    def __contains__(self, domain: str) -> bool:
        return domain in self._held

    def of(self, domain: str) -> Duty:
        """The duty of a domain; of an unknown one, none."""
        return self._held.get(domain, NONE)

    def domains(self) -> Iterator[tuple[str, Duty]]:
        """All that are known."""
        yield from tuple(self._held.items())

    def is_kept(self, domain: str, duty: Duty) -> bool:
        """Whether the register says just this; it need not say that there is none."""
        return self._kept.get(domain, NONE) == duty

    def take(self, register: Register) -> list[str]:
        """Learn what the store tells; the domains with another duty than before."""
        if register.problem:
            if self.problem != register.problem:
                text = "the register of the domains that sign cannot be read"
                event(_log, ERROR, text, reason=register.problem)
            self.problem = register.problem
            return []
        if self.problem:
            event(_log, INFO, "the register of the domains that sign is good again")
        self.problem = ""
        self._kept = dict(register.duties)
        changed = [name for name, duty in self._kept.items() if self.of(name) != duty]
        self._held.update(self._kept)
        return changed

    def note(self, domain: str, duty: Duty) -> None:
        """What was written just now."""
        self._held[domain] = self._kept[domain] = duty
