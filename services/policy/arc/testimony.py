"""What a trusted forwarder's word is good for.

Of a chain that is whole, the sealers from the last one back are asked as long as they are trusted.
What one of them saw as `pass` when the mail came to it outweighs our own failure of the same
method: the mail was changed, or sent on from another address, after that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from services.policy.arc.result import ArcResult

METHODS = frozenset({"spf", "dkim", "dmarc"})

# One without its end takes the rest. It always matches, so that nothing is looked at twice.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)")
_RESULT = re.compile(
    r"\s*(?P<method>[a-z]+)(?:\s*/\s*[0-9]+)?\s*=\s*(?P<result>[a-z]+)", re.IGNORECASE
)
_MAX_NESTING = 10


def witnesses(arc: ArcResult, trusted: Collection[str]) -> dict[str, str]:
    """Methods that a trusted sealer saw pass, each with who says so."""
    found: dict[str, str] = {}
    if arc.result != "pass":
        return found
    hops = zip(arc.sealers, arc.testimonies, strict=True)
    for sealer, testimony in reversed(list(hops)):
        if not _is_trusted(sealer, trusted):
            break
        for method in _passed(testimony.text):
            found.setdefault(method, sealer)
    return found


def _is_trusted(sealer: str, trusted: Collection[str]) -> bool:
    return any(sealer == domain or sealer.endswith(f".{domain}") for domain in trusted)


def _passed(text: str) -> Iterator[str]:
    """The methods with the result `pass` (RFC 8601 §2.2), comments and quoted strings left out."""
    plain = _QUOTED.sub("", text)
    for _ in range(_MAX_NESTING):
        shorter = _COMMENT.sub(" ", plain)
        if shorter == plain:
            break
        plain = shorter
    for part in plain.split(";")[2:]:
        match = _RESULT.match(part)
        if match and match["result"].lower() == "pass" and match["method"].lower() in METHODS:
            yield match["method"].lower()
