"""The header block of a message, as bytes: RFC 5322 §2.2, §3.6 and §4.5, RFC 6532.

Nothing here decodes and encodes again: a field that is kept is kept octet for octet, since
signatures depend on it. Anything parses. A line that is neither a field nor a continuation is kept
in its place as a malformed field, and the header goes on after it until the empty line: software
downstream disagrees on whether such a line ends the header, and a From below it must not go unseen
by the checks. Bare line feeds end lines too, for the same reason.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.common.mail.author import Authors, find_authors
from services.common.mail.printable import one_line
from services.common.mail.reply import HEADER_TOO_BIG, Reply

# RFC 5322 §2.1.1, without CRLF.
MAX_LINE_OCTETS = 998
FOLD_AT = 78
MAX_NAME_OCTETS = 76
# A value that we write is at most a long verdict; a word is cut so that any name fits on a line
# with it.
MAX_VALUE_OCTETS = 8 * 1024
MAX_WORD_OCTETS = MAX_LINE_OCTETS - MAX_NAME_OCTETS - len(": ")
# A header longer than this is an attack or a broken program; the largest seen in the wild are near
# 100 kB.
MAX_HEADER_OCTETS = 512 * 1024
MAX_HEADER_FIELDS = 2000

_END = re.compile(rb"\n\r?\n")
_EMPTY_FIRST_LINE = re.compile(rb"\r?\n")
# A line and those after it that begin with white space.
_FIELD = re.compile(rb"(?:[^\n]+\n?|\n)(?:[ \t][^\n]*\n?)*")
_NAME = re.compile(rb"[!-9;-~]+")
# White space before the colon is obsolete (RFC 5322 §4.5) but read by others, so it hides no field
# from us.
_NAME_AND_COLON = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LINE_END = re.compile(rb"\r?\n(?=[ \t])")
_FOLDING_SPACE = re.compile(r"(?<=[^ ]) (?=[^ ])")


class HeaderError(ValueError):
    """A header block beyond the limits; `reply` is what a client is told."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.reply: Reply = HEADER_TOO_BIG


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field, or a malformed line in the place where a field should be."""

    name: str
    """As written; "" for a malformed line."""
    raw: bytes
    """All its octets, line ends included."""

    @property
    def is_malformed(self) -> bool:
        """Whether this is a line that is no field (no colon, or no proper name before it)."""
        return not self.name

    @property
    def key(self) -> str:
        """The name for comparing."""
        return self.name.lower()

    @property
    def value(self) -> bytes:
        """What follows the colon (of a malformed line: all of it), unfolded and trimmed."""
        body = self.raw if self.is_malformed else self.raw.partition(b":")[2]
        return unfold(body).strip(b" \t\r\n")

    @property
    def text(self) -> str:
        """The value as UTF-8, undecodable octets replaced."""
        return self.value.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class HeaderBlock:
    """The fields of a message in their order; `bytes(block)` gives back what was parsed."""

    fields: tuple[HeaderField, ...] = ()

    def __bytes__(self) -> bytes:
        return b"".join(field.raw for field in self.fields)

    @property
    def malformed(self) -> tuple[HeaderField, ...]:
        """The lines that are no fields."""
        return tuple(field for field in self.fields if field.is_malformed)

    @cached_property
    def _by_key(self) -> dict[str, tuple[HeaderField, ...]]:
        """The fields of each name, found once: a mail's are asked for again and again."""
        found: dict[str, list[HeaderField]] = {}
        for field in self.fields:
            found.setdefault(field.key, []).append(field)
        return {key: tuple(fields) for key, fields in found.items()}

    def fields_named(self, name: str) -> tuple[HeaderField, ...]:
        """All fields of that name, in any case, from the top."""
        return self._by_key.get(name.lower(), ())

    def has(self, name: str) -> bool:
        """Whether there is a field of that name."""
        return name.lower() in self._by_key

    def count(self, name: str) -> int:
        """How many fields of that name there are (of `Received`: how many hops the mail made)."""
        return len(self.fields_named(name))

    def without(self, predicate: Callable[[HeaderField], bool]) -> "HeaderBlock":
        """The block without the fields for which `predicate` holds."""
        return HeaderBlock(tuple(field for field in self.fields if not predicate(field)))

    def prepended(self, fields: Iterable[bytes]) -> "HeaderBlock":
        """The block with these fields (as `folded` makes them) on top, the first one topmost."""
        new = tuple(field for raw in fields for field in parse_header(raw).fields)
        return HeaderBlock(new + self.fields)


def header_length(data: bytes | bytearray) -> int | None:
    """Octets of the header block that `data` begins with.

    None as long as `data` does not hold the empty line that ends it.
    """
    if _EMPTY_FIRST_LINE.match(data):
        return 0
    end = _END.search(data)
    return end.start() + 1 if end else None


def split_message(data: bytes) -> tuple[bytes, bytes]:
    """Header block (with the last field's line end) and body (after the empty line).

    Without an empty line everything is header and the body is empty.
    """
    length = header_length(data)
    if length is None:
        return data, b""
    empty_line = data.index(b"\n", length) + 1
    return data[:length], data[empty_line:]


def parse_header(
    block: bytes,
    *,
    max_octets: int = MAX_HEADER_OCTETS,
    max_fields: int = MAX_HEADER_FIELDS,
) -> HeaderBlock:
    """The fields of a header block, up to an empty line if it holds one.

    Anything parses; raises `HeaderError` beyond the limits.
    """
    block = block[: header_length(block)]
    if len(block) > max_octets:
        raise HeaderError(f"the header is longer than {max_octets} octets")
    raws: list[bytes] = _FIELD.findall(block)
    if len(raws) > max_fields:
        raise HeaderError(f"the header has more than {max_fields} fields")
    return HeaderBlock(tuple(map(_field, raws)))


def _field(raw: bytes) -> HeaderField:
    name = _NAME_AND_COLON.match(raw)
    return HeaderField(name[1].decode("ascii") if name else "", raw)


def from_addresses(block: HeaderBlock) -> Authors:
    """Whose mail this says it is: the addresses of all From fields and what is wrong with them."""
    return find_authors([field.value for field in block.fields_named("From")])


def unfold(raw: bytes) -> bytes:
    """`raw` without its folds (RFC 5322 §2.2.3): the line ends before white space are removed."""
    return _LINE_END.sub(b"", raw)


def folded(name: str, *parts: str, limit: int = FOLD_AT, utf8: bool = False) -> bytes:
    """A new field with its CRLF: the parts with a space between them, in lines of `limit` octets.

    Lines end between parts where possible, otherwise at a space; a word that fits no line is broken
    at the length that RFC 5322 allows. Line ends and controls in the parts cannot start another
    field: they become spaces and `?`. Without `utf8` (the mail is not an SMTPUTF8 one) other
    characters than ASCII are written as backslash escapes. Raises ValueError if `name` is not the
    name of a field.
    """
    if not _NAME.fullmatch(name.encode()) or len(name) > MAX_NAME_OCTETS:
        raise ValueError(f"{name!r} is not the name of a header field")
    lines: list[bytes] = []
    line, is_bare = name.encode() + b":", True
    for part in parts:
        clean = one_line(part, limit=MAX_VALUE_OCTETS)
        if not utf8 and not clean.isascii():
            clean = clean.encode("ascii", errors="backslashreplace").decode("ascii")
        for piece in _pieces(clean, room=limit - len(line) if is_bare else limit):
            # On the line of the name in any case: some readers trip over a name alone on its line.
            if is_bare or len(line) + len(piece) <= limit:
                line += piece
            else:
                lines.append(line)
                line = piece
            is_bare = False
    return b"\r\n".join((*lines, line, b""))


def _pieces(part: str, *, room: int) -> Sequence[bytes]:
    """The part with a space before it if that fits, otherwise its words, each with one."""
    if len(octets := b" " + part.encode()) <= room:
        return (octets,) if part else ()
    # A character has up to four octets, and none may be cut in two.
    step = MAX_WORD_OCTETS if part.isascii() else MAX_WORD_OCTETS // 4
    return [
        b" " + word[at : at + step].encode()
        for word in _FOLDING_SPACE.split(part)
        for at in range(0, len(word), step)
    ]
