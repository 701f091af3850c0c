"""Domain names as they are asked for: absolute, lower-case A-labels without the final dot.

RFC 1035 §2.3.4 (lengths), RFC 4343 (case), RFC 5891 (U-labels). Any printable ASCII is a name to
the DNS, spaces too, and SPF macros make odd ones (RFC 7208 §7.1, `%_`), so characters are not
limited to those of host names. Refused: control characters, backslashes (which are how odd octets
are shown), and U-labels that IDNA would have to map first: full-width letters and ideographic full
stops are how one name is made to look like another.
"""

from __future__ import annotations

import idna

MAX_NAME_OCTETS = 253  # as text without the final dot; 255 on the wire (RFC 1035 §2.3.4)
MAX_LABEL_OCTETS = 63

ROOT = "."


class InvalidNameError(ValueError):
    """The string is no domain name; the message says why, in printable words, without the name."""


def canonical(name: str) -> str:
    """The one spelling of a name that is asked for and compared. Raises InvalidNameError."""
    if name == ROOT:
        return ROOT
    labels = [_canonical_label(label) for label in name.removesuffix(".").split(".")]
    text = ".".join(labels)
    if len(text) > MAX_NAME_OCTETS:
        raise InvalidNameError(f"longer than {MAX_NAME_OCTETS} octets")
    return text


def printable(text: str, *, limit: int = 300) -> str:
    """The text as one line of printable ASCII, cut at `limit` characters: safe in a log or a
    reply."""
    line = "".join(char if " " <= char <= "~" else "?" for char in text[:limit])
    return line if len(text) <= limit else line[: limit - 3] + "..."


def _canonical_label(label: str) -> str:
    lower = label.lower()
    if not lower.isascii():
        lower = _a_label(lower)
    if not lower:
        raise InvalidNameError("an empty label")
    if len(lower) > MAX_LABEL_OCTETS:
        raise InvalidNameError(f"a label longer than {MAX_LABEL_OCTETS} octets")
    if any(not " " <= char <= "~" or char == "\\" for char in lower):
        raise InvalidNameError("a character that no name can have")
    return lower


def _a_label(label: str) -> str:
    try:
        return idna.alabel(label).decode("ascii")
    except UnicodeError as error:
        raise InvalidNameError("a label that IDNA does not allow") from error
