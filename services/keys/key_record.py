"""The TXT record of a key: what to publish, and whether what is published will do.

RFC 6376 §3.6.1 (tags), §3.6.2.2 (one record, its strings joined without a gap), RFC 8463 §4, RFC
1035 §5.1 (zone files). Judging is as forgiving as verifiers are (unknown tags, order, white space
in `p=`) and as strict (a second record, another key, a restriction that excludes our signatures).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from services.common.mail.printable import one_line
from services.keys.key import Key

MAX_STRING_OCTETS: Final = 255
"""Of one string within a TXT record (RFC 1035 §3.3)."""
_SHOWN_OCTETS: Final = 300

_TAG_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SPACE: Final = " \t\n\r\f\v"


def value(key: Key) -> str:
    """The whole value as one string."""
    return f"v=DKIM1; k={key.key_type}; p={key.public}"


def zone_file(name: str, text: str) -> str:
    """A TXT record in zone-file form; a long value in several strings, one on each line."""
    parts = [
        text[start : start + MAX_STRING_OCTETS] for start in range(0, len(text), MAX_STRING_OCTETS)
    ]
    quoted = [_quoted(part) for part in parts]
    if len(quoted) == 1:
        return f"{name}. IN TXT {quoted[0]}"
    lines = "\n".join(f"    {part}" for part in quoted)
    return f"{name}. IN TXT (\n{lines}\n)"


def objection(key: Key, published: Sequence[bytes]) -> str:
    """Why verifiers would not find the key in these TXT records; blank if they would.

    One printable line for people.
    """
    if not published:
        return "no TXT record"
    shown = "; ".join(f'"{_shown(record)}"' for record in published)
    if len(published) > 1:
        return f"{len(published)} TXT records where there must be one: {shown}"
    reason = _objection_to(key, published[0])
    return f"{reason}: {shown}" if reason else ""


def _objection_to(key: Key, record: bytes) -> str:
    tags = _tags(record)
    if tags is None:
        return "not a DKIM key record"
    return (
        _version_objection(tags)
        or _public_objection(key, tags.get("p"))
        or _restriction_objection(key, tags)
    )


def _version_objection(tags: dict[str, str]) -> str:
    # If there is a version it must be the first tag (RFC 6376 §3.6.1).
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
        return "v= is not DKIM1 at the beginning"
    return ""


def _public_objection(key: Key, published: str | None) -> str:
    if published is None:
        return "there is no p= in it"
    found = "".join(published.split())
    if found == key.public:
        return ""
    if not found:
        return "p= is empty, which revokes the key"
    if key.public.startswith(found):
        return f"the key is cut off after {len(found)} of {len(key.public)} characters"
    return "it holds another key, or this one damaged"


def _restriction_objection(key: Key, tags: dict[str, str]) -> str:
    if tags.get("k", "rsa") != key.key_type:
        return f"k= is not {key.key_type}"
    if "h" in tags and "sha256" not in _words(tags["h"]):
        return "h= does not allow sha256"
    if "s" in tags and not {"*", "email"} & _words(tags["s"]):
        return "s= does not allow email"
    return ""


def _words(value: str) -> set[str]:
    return {word.strip() for word in value.split(":")}


def _tags(record: bytes) -> dict[str, str] | None:
    """The tag list (RFC 6376 §3.2) in its order; None if it is none."""
    try:
        text = record.decode("ascii")
    except UnicodeDecodeError:
        return None
    tags: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, value = (piece.strip(_SPACE) for piece in part.partition("="))
        if not equals or not _TAG_NAME.fullmatch(name) or name in tags:
            return None
        tags[name] = value
    return tags or None


def _shown(record: bytes) -> str:
    return one_line(record.decode("ascii", "backslashreplace"), limit=_SHOWN_OCTETS)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
