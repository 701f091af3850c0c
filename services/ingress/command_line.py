"""A line from a client as a command: verb and argument, or why it is none (pure).

RFC 5321 §2.4, §4.1.1, §4.5.3.1.4. Lines end in CRLF and hold no other CR, LF or NUL; verbs are
ASCII in any case, arguments UTF-8 (RFC 6531 §3.3). Whether a verb is one is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.common.mail.parameter_parser import MAX_SIZE_DIGITS
from services.common.mail.reply import Reply
from services.ingress.replies import LINE_END_WRONG, LINE_TOO_LONG, NOT_UTF8
from services.ingress.sasl import MAX_RESPONSE_OCTETS

COMMAND_OCTETS: Final = 512
"""RFC 5321 §4.5.3.1.4, with the CRLF."""

PARAMETER_COMMAND_OCTETS: Final = 2048
"""MAIL and RCPT: SIZE, BODY, AUTH=, ENVID and ORCPT add up to some 1,300 octets."""

_LIMITS: Final[Mapping[str, int]] = {
    "AUTH": MAX_RESPONSE_OCTETS,
    "MAIL": PARAMETER_COMMAND_OCTETS,
    "RCPT": PARAMETER_COMMAND_OCTETS,
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command. Its argument may be a secret, and is not shown."""

    verb: str
    """In upper case."""
    argument: str = field(repr=False)
    """Without white space around it."""


def parse_command(line: bytes) -> Command | Reply:
    """The command in a line, or what is wrong with it."""
    if not is_proper_line(line):
        return LINE_END_WRONG
    # Octets first: some letters outside ASCII become ASCII ones in upper case.
    head, _, rest = line[:-2].partition(b" ")
    try:
        verb, argument = head.upper().decode("ascii"), rest.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_UTF8
    if len(line) > _LIMITS.get(verb, COMMAND_OCTETS):
        return LINE_TOO_LONG
    return Command(verb, argument.strip(" \t"))


def is_proper_line(line: bytes) -> bool:
    """Whether a line ends in CRLF and has no other CR, LF or NUL."""
    return line.endswith(b"\r\n") and b"\r" not in line[:-2] and b"\0" not in line


def parse_bdat(argument: str) -> tuple[int, bool] | None:
    """Octets and whether it is the last chunk (RFC 3030 §2); None for anything else."""
    size, _, last = argument.partition(" ")
    if not (size.isascii() and size.isdigit() and len(size) <= MAX_SIZE_DIGITS):
        return None
    if last.upper() not in ("", "LAST"):
        return None
    return int(size), bool(last)
