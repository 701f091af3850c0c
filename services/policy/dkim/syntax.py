"""Tag lists and header canonicalisation by dkimpy. The only module that knows dkimpy.

RFC 6376 §3.2 (tag lists), §3.4.1 and §3.4.2 (header canonicalisation), §3.7 (which fields are
hashed). What the library does in quadratic time is done here instead: choosing the signed fields
and emptying the `b=` tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dkim.canonicalization import Relaxed, Simple
from dkim.util import InvalidTagValueList, parse_tag_value

from services.common.mail.message import HeaderBlock, HeaderField, unfold

MAX_TAGS = 100
MAX_VALUE_OCTETS = 64 * 1024
"""Of a whole tag list. A signature has under one KiB, with ARC and long lists of fields a few."""

_SPACES = b" \t\r\n"


class TagError(ValueError):
    """Not a tag list."""


def parse_tags(value: bytes) -> dict[str, str]:
    """The tags of a list, values trimmed and unfolded. Raises `TagError`."""
    if len(value) > MAX_VALUE_OCTETS or value.count(b";") > MAX_TAGS:
        raise TagError("too long a list of tags")
    try:
        tags = parse_tag_value(unfold(value))
        return {name.decode("ascii"): text.decode("utf-8") for name, text in tags.items()}
    except InvalidTagValueList as error:
        raise TagError(f"not a list of tags ({type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise TagError("neither ASCII nor UTF-8") from error


def without_white_space(text: str) -> str:
    """A value in which folding white space means nothing (base64, lists)."""
    return "".join(text.split())


def canonical_field(field: HeaderField, *, relaxed: bool) -> bytes:
    """One field as it is hashed, with its CRLF."""
    name, _, value = field.raw.partition(b":")
    if not value.endswith(b"\n"):
        value += b"\r\n"
    return _canonical(name, value, relaxed=relaxed)


def canonical_signature(field: HeaderField, *, relaxed: bool) -> bytes:
    """The signature's own field as it is hashed: `b=` is empty and the last CRLF is gone."""
    name, _, value = field.raw.partition(b":")
    return _canonical(name, _without_b(value) + b"\r\n", relaxed=relaxed)[:-2]


def signed_fields(header: HeaderBlock, names: Iterable[str]) -> Iterator[HeaderField]:
    """The fields that a list of names signs: of each name from the bottom up, once each (§5.4.2).

    A name for which no field is left signs that there is none, which adds nothing.
    """
    left: dict[str, list[HeaderField]] = {}
    for field in header.fields:
        left.setdefault(field.key, []).append(field)
    for name in names:
        fields = left.get(name.lower())
        if fields:
            yield fields.pop()


def _canonical(name: bytes, value: bytes, *, relaxed: bool) -> bytes:
    algorithm = Relaxed if relaxed else Simple
    [(name, value)] = algorithm.canonicalize_headers([(name, value)])
    return name + b":" + value


def _without_b(value: bytes) -> bytes:
    """RFC 6376 §3.5: the value of `b=` with the white space around it counts as empty."""
    parts = value.rstrip(b"\r\n").split(b";")
    for number, part in enumerate(parts):
        name, found, _ = part.partition(b"=")
        if found and name.strip(_SPACES) == b"b":
            parts[number] = name + b"="
    return b";".join(parts)
