"""Tag lists and header canonicalisation by dkimpy. The only module that knows dkimpy.

RFC 6376 §3.2 (tag lists), §3.4.1 and §3.4.2 (header canonicalisation), §3.7 (which fields are
hashed). What the library does in quadratic time is done here instead: choosing the signed fields
and emptying the `b=` tag. Deviation from dkimpy: it strips vertical tabs and form feeds from the
ends of a value too, which are no white space to RFC 6376.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dkim.canonicalization import compress_whitespace, unfold_header_value
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


def canonical_fields(fields: Iterable[HeaderField], *, relaxed: bool) -> bytes:
    """Fields as they are hashed, each with its CRLF."""
    return b"".join(_canonical(field.raw, relaxed=relaxed) for field in fields)


def canonical_signature(field: HeaderField, *, relaxed: bool) -> bytes:
    """The signature's own field as it is hashed: `b=` is empty and the last CRLF is gone."""
    name, _, value = field.raw.partition(b":")
    return _canonical(name + b":" + _without_b(value), relaxed=relaxed)[:-2]


def signed_fields(header: HeaderBlock, names: Iterable[str]) -> Iterator[HeaderField]:
    """The fields that a list of names in lower case signs: of each from the bottom up (§5.4.2).

    A name for which no field is left signs that there is none, which adds nothing.
    """
    left: dict[str, list[HeaderField]] = {}
    for name in names:
        if name not in left:
            left[name] = list(header.fields_named(name))
        if left[name]:
            yield left[name].pop()


def _canonical(field: bytes, *, relaxed: bool) -> bytes:
    if not relaxed:
        return field if field.endswith(b"\n") else field + b"\r\n"
    name, _, value = field.partition(b":")
    value = value.strip(_SPACES)
    # Most fields need neither, and finding that out is cheaper than a regular expression.
    if b"\n" in value:
        value = unfold_header_value(value)
    if b"  " in value or b"\t" in value:
        value = compress_whitespace(value)
    return b"%b:%b\r\n" % (name.lower().rstrip(_SPACES), value)


def _without_b(value: bytes) -> bytes:
    """RFC 6376 §3.5: the value of `b=` with the white space around it counts as empty."""
    parts = value.rstrip(b"\r\n").split(b";")
    for number, part in enumerate(parts):
        name, found, _ = part.partition(b"=")
        if found and name.strip(_SPACES) == b"b":
            parts[number] = name + b"="
    return b";".join(parts)
