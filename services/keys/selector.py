"""Selectors (RFC 6376 §3.1): what may be one, and what is proposed for a new key.

A selector is one or more DNS labels of letters, digits and inner hyphens. Letter case does not
matter in the DNS, so selectors are kept in lower case and two that differ only in case are one.
"""

import re
from collections.abc import Container
from datetime import date
from typing import Final

MAX_LABEL_OCTETS: Final = 63
MAX_NAME_OCTETS: Final = 253
"""A name as text, without the final dot (RFC 1035 §2.3.4)."""
_MAX_SAME_DAY: Final = 1000
"""So many keys for one domain on one day are a program gone wild."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


class SelectorError(ValueError):
    """This cannot be a selector; the message says what one is."""


def parse_selector(text: str) -> str:
    """The selector in lower case. Raises `SelectorError`."""
    selector = text.lower() if text.isascii() else ""
    labels = selector.split(".")
    if not all(_LABEL.fullmatch(label) and len(label) <= MAX_LABEL_OCTETS for label in labels):
        raise SelectorError(
            "a selector is letters, digits and hyphens, for example s2026, with dots between such"
            f" labels; a label has at most {MAX_LABEL_OCTETS} characters and no hyphen at its ends"
        )
    return selector


def proposed(key_type: str, day: date, used: Container[str]) -> str:
    """A selector with the key's type and the date in it that is not in `used`.

    The date tells people which record is old; the type keeps the RSA and the Ed25519 key that are
    made together apart. Raises `SelectorError` if the day's proposals are used up.
    """
    stem = f"{'ed' if key_type == 'ed25519' else key_type}{day:%Y%m%d}"
    for number in range(1, _MAX_SAME_DAY):
        selector = stem if number == 1 else f"{stem}-{number}"
        if selector not in used:
            return selector
    raise SelectorError(f"{_MAX_SAME_DAY - 1} selectors like {stem} are used already; name one")
