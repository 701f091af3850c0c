"""The addresses of From fields: RFC 5322 §3.4 and §3.6.2, groups of RFC 6854, UTF-8 of RFC 6532.

For checks that compare the author with other identities. Reads comments, quoted strings, display
names (with the dots that people do not quote, or the address once more), groups and obsolete
routes; decodes no encoded word, so nothing in one can become an address.

Everything that two readers could understand differently is a `problem`, and a caller must then
trust none of the addresses: more than one field, no address, something left over beside an address,
another address for a display name.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from functools import lru_cache

from services.common.mail.address import AddressError, Mailbox, make_mailbox

# Beyond these a From is not something a person wrote, and every further address would be judged by
# DNS look-ups.
MAX_FROM_OCTETS = 16 * 1024
MAX_FROM_ADDRESSES = 100
MAX_KNOWN_OCTETS = 256
"""Longer ones are not kept."""


class FromProblem(StrEnum):
    """Why the addresses of From cannot be relied on."""

    MISSING = "there is no From field"
    REPEATED = "there are several From fields"
    TOO_LONG = "the From field is too long"
    MALFORMED = "the From field is malformed"
    EMPTY = "the From field names no address"


@dataclass(frozen=True, slots=True)
class Authors:
    """All addresses that were found, in order, and the worst problem."""

    addresses: tuple[Mailbox, ...] = ()
    problem: FromProblem | None = None

    @property
    def only(self) -> Mailbox | None:
        """The one author of a mail whose From leaves no doubt."""
        return self.addresses[0] if len(self.addresses) == 1 and not self.problem else None


# Of what is malformed or too long not even the addresses are known.
_WORST_FIRST = (
    FromProblem.TOO_LONG,
    FromProblem.MALFORMED,
    FromProblem.REPEATED,
    FromProblem.EMPTY,
)


def find_authors(values: Sequence[bytes]) -> Authors:
    """The authors named by the unfolded values of all From fields of a message. Never raises."""
    if not values:
        return Authors(problem=FromProblem.MISSING)
    found: list[Mailbox] = []
    problems = {FromProblem.REPEATED} if len(values) > 1 else set()
    for value in values:
        parse = _parse_known if len(value) <= MAX_KNOWN_OCTETS else _parse_value
        addresses, problem = parse(value)
        found += addresses
        problems |= {problem} if problem else set()
    if len(found) > MAX_FROM_ADDRESSES:
        problems.add(FromProblem.TOO_LONG)
    if not found:
        problems.add(FromProblem.EMPTY)
    worst = next((problem for problem in _WORST_FIRST if problem in problems), None)
    return Authors(tuple(found[:MAX_FROM_ADDRESSES]), worst)


def _parse_value(value: bytes) -> tuple[Sequence[Mailbox], FromProblem | None]:
    if len(value) > MAX_FROM_OCTETS:
        return (), FromProblem.TOO_LONG
    addresses: list[Mailbox] = []
    try:
        # Fills as it goes: what stood before a mistake is known when it is met.
        addresses.extend(map(_mailbox, _entries(_tokens(value.decode("utf-8")))))
    except (UnicodeDecodeError, AddressError, _Malformed):
        return tuple(addresses), FromProblem.MALFORMED
    return tuple(addresses), None


# The same people and programs write again and again.
_parse_known = lru_cache(maxsize=1024)(_parse_value)


class _Malformed(Exception):
    """The text does not follow the grammar."""


class _Kind(Enum):
    ATOM = auto()
    QUOTED = auto()
    LITERAL = auto()
    SPECIAL = auto()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    """Of a quoted string, what it means; of a literal, with its brackets."""

    def is_special(self, text: str) -> bool:
        return self.kind is _Kind.SPECIAL and self.text == text


_Tokens = list[_Token]

_WHITE_SPACE = " \t"
_TOKEN = re.compile(
    r"""(?P<ATOM>[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+)
      | "(?P<QUOTED>(?:[^"\\]|\\.)*)"
      | (?P<LITERAL>\[[^\[\]\\]*\])
      | (?P<SPECIAL>[<>@,:;.])""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens of a field value; white space and comments between them are left out."""
    position = 0
    while position < len(text):
        if text[position] in _WHITE_SPACE:
            position += 1
        elif text[position] == "(":
            position = _end_of_comment(text, position)
        else:
            match = _TOKEN.match(text, position)
            if not match or not match.lastgroup:
                raise _Malformed
            kind = _Kind[match.lastgroup]
            content = match[match.lastgroup]
            yield _Token(
                kind, _QUOTED_PAIR.sub(r"\1", content) if kind is _Kind.QUOTED else content
            )
            position = match.end()


def _end_of_comment(text: str, position: int) -> int:
    depth = 0
    while position < len(text):
        character = text[position]
        position += 2 if character == "\\" else 1
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position
    raise _Malformed


def _entries(tokens: Iterator[_Token]) -> Iterator[_Tokens]:
    """The tokens of one mailbox after the other: lists are split at commas, groups are opened."""
    entry: _Tokens = []
    in_group = in_angle = False
    for token in tokens:
        in_angle = token.is_special("<") or (in_angle and not token.is_special(">"))
        if in_angle or token.kind is not _Kind.SPECIAL or token.text not in ",:;":
            entry.append(token)
            continue
        if token.text == ":":
            _check_phrase(entry, nested=in_group)
            in_group = True
        else:
            if token.text == ";" and not in_group:
                raise _Malformed
            if entry:
                yield entry
            in_group = in_group and token.text != ";"
        entry = []
    if in_group:
        raise _Malformed
    if entry:
        yield entry


def _check_phrase(name: _Tokens, *, nested: bool) -> None:
    """A group has a name and holds no other group."""
    if nested or not name or not _is_phrase(name):
        raise _Malformed


def _is_phrase(tokens: _Tokens) -> bool:
    """Words, and the dots of initials that RFC 5322 §4.1 calls obsolete and everybody writes."""
    return all(
        token.kind in (_Kind.ATOM, _Kind.QUOTED) or token.is_special(".") for token in tokens
    )


def _mailbox(entry: _Tokens) -> Mailbox:
    """`addr-spec`, or a display name and `<addr-spec>`."""
    opening = [at for at, token in enumerate(entry) if token.is_special("<")]
    if not opening:
        return _addr_spec(entry)
    if len(opening) > 1 or not entry[-1].is_special(">"):
        raise _Malformed
    name, angle = entry[: opening[0]], entry[opening[0] + 1 : -1]
    mailbox = _addr_spec(_without_route(angle))
    # An address for a name: readers differ on which of the two they take, so they must be the same.
    if not _is_phrase(name) and _addr_spec(name).key != mailbox.key:
        raise _Malformed
    return mailbox


def _without_route(angle: _Tokens) -> _Tokens:
    if not angle or not angle[0].is_special("@"):
        return angle
    for at, token in enumerate(angle):
        if token.is_special(":"):
            return angle[at + 1 :]
    raise _Malformed


def _addr_spec(tokens: _Tokens) -> Mailbox:
    at_signs = [at for at, token in enumerate(tokens) if token.is_special("@")]
    if len(at_signs) != 1:
        raise _Malformed
    local, domain = tokens[: at_signs[0]], tokens[at_signs[0] + 1 :]
    if len(domain) == 1 and domain[0].kind is _Kind.LITERAL:
        return make_mailbox(_dotted(local, _Kind.ATOM, _Kind.QUOTED), domain[0].text)
    return make_mailbox(_dotted(local, _Kind.ATOM, _Kind.QUOTED), _dotted(domain, _Kind.ATOM))


def _dotted(tokens: _Tokens, *kinds: _Kind) -> str:
    """The text of words with a dot between each two."""
    words, dots = tokens[::2], tokens[1::2]
    if len(words) != len(dots) + 1 or any(word.kind not in kinds for word in words):
        raise _Malformed
    if not all(dot.is_special(".") for dot in dots):
        raise _Malformed
    return ".".join(word.text for word in words)
