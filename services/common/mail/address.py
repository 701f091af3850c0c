"""The one strict parser of mail addresses: RFC 5321 §4.1.2, with RFC 6531 §3.3 for SMTPUTF8.

Everything that decides about an address (relay, account, policy, route) uses the `Mailbox` made
here, so that no two parts of the product can read one text as two addresses.

Guarantees: parsing raises `AddressError` and nothing else; a `Mailbox` printed with `str` parses to
an equal one; the local part is never interpreted (percent hack, bang path and sub-address are for
policy to judge).

Refuses: comments, folding white space, control characters, RFC 2047 decoding (an encoded word is an
ordinary local part), source routes that do not parse (valid ones are dropped, RFC 5321 Appendix C),
and in local parts the compatibility characters whose normal form holds ASCII (a full-width `@`
would turn into a real one in somebody else's hands).

Deviation: an empty quoted local part (`""@example.org`), which the grammar allows, is refused; it
names nobody and would be an empty key or path component elsewhere.
Deviation: spaces after the colon of `MAIL FROM:` are ignored, since many clients send one.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from services.common.mail.destination import destination_of_token, subject_token
from services.common.mail.domain import (
    AddressError,
    HeloKind,
    HeloName,
    literal_text,
    parse_domain,
    parse_helo,
    parse_literal,
    unicode_domain,
)
from services.common.mail.printable import is_visible

__all__ = [
    "POSTMASTER",
    "ROUTE_MARKS",
    "AddressError",
    "HeloKind",
    "HeloName",
    "Mailbox",
    "NoAddress",
    "destination_of_token",
    "folded",
    "make_mailbox",
    "parse_domain",
    "parse_forward_path",
    "parse_helo",
    "parse_literal",
    "parse_mailbox",
    "parse_reverse_path",
    "subject_token",
]

# RFC 5321 §4.5.3.1.1 and §4.5.3.1.3, in octets of the form on the wire.
MAX_LOCAL_PART_OCTETS = 64
MAX_PATH_OCTETS = 256

ROUTE_MARKS = frozenset("@%!")
"""With these a local part can name somebody elsewhere: RFC 5321 Appendix F.2, and bang paths."""

_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_DOT_STRING = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*")
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_NEEDS_BACKSLASH = re.compile(r'(["\\])')


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address: the local part without quoting, and the canonical domain.

    The domain is "" for `POSTMASTER` alone. The constructor raises `AddressError` for parts that
    no parser here would give, so that an address put together from a record or a database is
    as trustworthy as a parsed one.
    """

    local_part: str
    domain: str
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_local_part(self.local_part)
        if self.domain:
            _check_canonical_domain(self.domain)
        elif self.local_part != "postmaster":
            raise AddressError("only postmaster may stand without a domain")
        local = _quoted_if_needed(self.local_part)
        text = f"{local}@{self.domain}" if self.domain else local
        if len(text.encode()) + 2 > MAX_PATH_OCTETS:
            raise AddressError(f"the path is longer than {MAX_PATH_OCTETS} octets")
        # Made once: a mail's addresses are written a dozen times.
        object.__setattr__(self, "_text", text)

    def __str__(self) -> str:
        return self._text

    @property
    def key(self) -> str:
        """For comparing and looking up: case-folded, normalised local part and canonical domain."""
        if self.local_part.isascii():  # which has one normal form
            return f"{self.local_part.lower()}@{self.domain}"
        folded = unicodedata.normalize("NFD", self.local_part).casefold()
        return f"{unicodedata.normalize('NFC', folded)}@{self.domain}"

    @property
    def domain_unicode(self) -> str:
        """The domain for a person to read."""
        return self.domain if self.is_literal else unicode_domain(self.domain)

    @property
    def is_literal(self) -> bool:
        """Whether the domain is an address literal."""
        return self.domain.startswith("[")

    @property
    def literal_address(self) -> IPv4Address | IPv6Address | None:
        """The address of an address literal, None for a named domain."""
        return parse_literal(self.domain) if self.is_literal else None

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a peer with SMTPUTF8 can be given this address; a domain never needs it."""
        return not self.local_part.isascii()


def parse_mailbox(text: str, *, smtputf8: bool = False) -> Mailbox:
    """The address in `local@domain` or a bare `postmaster`, without brackets.

    Raises `AddressError`.
    """
    # What is longer is refused, and must not be kept.
    parse = _parse_known if len(text) <= MAX_PATH_OCTETS else _parse_mailbox
    return parse(text, smtputf8)


def _parse_mailbox(text: str, smtputf8: bool) -> Mailbox:
    # RFC 5321 §4.5.1: postmaster without a domain, in any case, must be accepted.
    if text.lower() == "postmaster":
        return POSTMASTER
    _check_alphabet(text, smtputf8=smtputf8)
    local_part, at = _scan_local_part(text, 0)
    if text[at : at + 1] != "@":
        raise AddressError("the address has no @ after its local part")
    return make_mailbox(local_part, text[at + 1 :])


# One address is read several times for a mail, and recipients come again with every other one.
_parse_known = lru_cache(maxsize=4096)(_parse_mailbox)


def make_mailbox(local_part: str, domain: str) -> Mailbox:
    """An address of an unquoted local part and a domain or literal in any valid spelling.

    Raises `AddressError`.
    """
    return Mailbox(local_part, _canonical_domain(domain))


# The same recipients come again and again.
@lru_cache(maxsize=4096)
def folded(mailbox: Mailbox) -> Mailbox:
    """An account's address in the one spelling that it is stored under.

    Raises `AddressError` for what becomes too long by it.
    """
    return make_mailbox(mailbox.key.rpartition("@")[0], mailbox.domain)


class NoAddress(AddressError):
    """A path that holds a visible word that is no address. What it says can be judged."""

    def __init__(self, reason: str, *, word: str, parameters: str) -> None:
        super().__init__(reason)
        self.word = word
        self.parameters = parameters


def parse_reverse_path(argument: str, *, smtputf8: bool) -> tuple[Mailbox | None, str]:
    """What follows `MAIL FROM:`: the sender (None for `<>`) and the text of the parameters.

    Raises `AddressError`; `NoAddress` where only the address is wrong, not the command.
    """
    path, parameters = _split_path(argument)
    if path == "<>":
        return None, parameters
    try:
        sender = _parse_path(path, smtputf8=smtputf8)
        if not sender.domain:
            raise AddressError("the reverse-path has no domain")
    except AddressError as error:
        word = path[1:-1]
        if not _is_word(word):
            raise
        raise NoAddress(error.reason, word=word, parameters=parameters) from None
    return sender, parameters


def _is_word(text: str) -> bool:
    return all(is_visible(c) and c not in "<> " for c in text)


def parse_forward_path(argument: str, *, smtputf8: bool) -> tuple[Mailbox, str]:
    """What follows `RCPT TO:`: the recipient and the text of the parameters.

    Raises `AddressError`.
    """
    path, parameters = _split_path(argument)
    if path == "<>":
        raise AddressError("the forward-path is empty")
    return _parse_path(path, smtputf8=smtputf8), parameters


def _split_path(argument: str) -> tuple[str, str]:
    """`<path>` and the rest of the line; a `>` inside a quoted local part does not end the path."""
    text = argument.strip(" ")
    if not text.startswith("<"):
        raise AddressError("the address is not in angle brackets")
    end = _closing_bracket(text)
    rest = text[end + 1 :]
    if rest and not rest.startswith(" "):
        raise AddressError("the path is followed by something other than a space")
    path = text[: end + 1]
    if len(path) > MAX_PATH_OCTETS or len(path.encode(errors="replace")) > MAX_PATH_OCTETS:
        raise AddressError(f"the path is longer than {MAX_PATH_OCTETS} octets")
    return path, rest.strip(" ")


def _closing_bracket(text: str) -> int:
    quoted = False
    position = 1 if '"' in text else max(text.find(">"), 1)
    while position < len(text):
        character = text[position]
        if character == ">" and not quoted:
            return position
        if character == '"':
            quoted = not quoted
        # The pair is skipped as a whole: \" does not end the quoted string.
        position += 2 if quoted and character == "\\" else 1
    raise AddressError("the path is not closed by an angle bracket")


def _parse_path(path: str, *, smtputf8: bool) -> Mailbox:
    inner = path[1:-1]
    _check_alphabet(inner, smtputf8=smtputf8)
    mailbox = parse_mailbox(_without_source_route(inner), smtputf8=smtputf8)
    if inner.startswith("@") and not mailbox.domain:
        raise AddressError("the source route leads to no domain")
    return mailbox


def _without_source_route(inner: str) -> str:
    if not inner.startswith("@"):
        return inner
    route, colon, mailbox = inner.partition(":")
    # A literal in the route holds colons of its own (IPv6); sending one is obsolete and pointless,
    # so it is refused.
    if not colon:
        raise AddressError("the source route has no colon")
    for hop in route.split(","):
        if not hop.startswith("@"):
            raise AddressError("the source route names a hop without @")
        parse_domain(hop[1:])
    return mailbox


def _scan_local_part(text: str, start: int) -> tuple[str, int]:
    """The unquoted local part that begins at `start`, and where it ends."""
    if text[start : start + 1] == '"':
        quoted = _QUOTED_STRING.match(text, start)
        if not quoted:
            raise AddressError("the quoted local part is not closed or holds a forbidden character")
        return _QUOTED_PAIR.sub(r"\1", quoted.group()[1:-1]), quoted.end()
    atoms = _DOT_STRING.match(text, start)
    if not atoms:
        raise AddressError("the local part is empty or begins with a character that is not allowed")
    return atoms.group(), atoms.end()


def _canonical_domain(text: str) -> str:
    if text.startswith("["):
        return literal_text(parse_literal(text))
    return _canonical_name(text)


# The same few thousand domains come again and again, and checking them is most of the work.
_canonical_name = lru_cache(maxsize=4096)(parse_domain)


def _check_canonical_domain(domain: str) -> None:
    if _canonical_domain(domain) != domain:
        raise AddressError("the domain is not in its canonical form")


def _check_alphabet(text: str, *, smtputf8: bool) -> None:
    if not smtputf8 and not text.isascii():
        raise AddressError("the address has characters outside ASCII without SMTPUTF8")


def _check_local_part(local_part: str) -> None:
    if not local_part:
        raise AddressError("the local part is empty")
    # Of ASCII, what is printable is allowed; only other characters need a closer look.
    plain = local_part.isascii() and local_part.isprintable()
    if not plain and not all(map(_is_allowed, local_part)):
        raise AddressError("the local part holds a character that is not allowed")
    # Lone surrogates are refused above, so that encoding cannot fail here.
    if len(_quoted_if_needed(local_part).encode()) > MAX_LOCAL_PART_OCTETS:
        raise AddressError(f"the local part is longer than {MAX_LOCAL_PART_OCTETS} octets")


def _is_allowed(character: str) -> bool:
    if character.isascii() or not is_visible(character):
        return character.isprintable()
    return not any(map(str.isascii, unicodedata.normalize("NFKC", character)))


def _quoted_if_needed(local_part: str) -> str:
    if _DOT_STRING.fullmatch(local_part):
        return local_part
    return '"' + _NEEDS_BACKSLASH.sub(r"\\\1", local_part) + '"'


POSTMASTER = Mailbox("postmaster", "")
"""The recipient of `RCPT TO:<postmaster>`, in whatever case it was written (RFC 5321 §4.5.1)."""
