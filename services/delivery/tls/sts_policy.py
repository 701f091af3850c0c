"""MTA-STS records and policies as text: RFC 8461 §3.1 (record), §3.2 (policy), §4.1 (matching).

Guarantees: a text that does not follow the grammar is no policy at all, with the reason; names are
in canonical form. Fields that we do not know are passed over, as §3.2 says. Refuses: `mx` patterns
with a `*` that is not the whole first label, and names that are no domains.

Deviation: blank lines in a policy are passed over; §3.2 does not foresee them, and they are common.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from services.common.mail.domain import AddressError, parse_domain

MAX_POLICY_OCTETS: Final = 64 * 1024
"""RFC 8461 §3.2 lets us choose; real ones have 200."""

MAX_AGE: Final = timedelta(seconds=31_557_600)
"""A year, the most that a policy may say (§3.2). One that says more counts as this."""

MIN_AGE: Final = timedelta(minutes=5)
"""One that says less counts as this: otherwise each mail would ask the policy host."""

_RECORD_HEAD: Final = re.compile(rb"v=STSv1[ \t]*;")
_RECORD_FIELD: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]+)")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_SECONDS: Final = re.compile(r"[0-9]{1,10}")


class Mode(StrEnum):
    """What a policy asks senders to do."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What a domain asks of those who send mail to it."""

    mode: Mode
    patterns: tuple[str, ...]
    """Of the names of its mail exchanges; `*.` at the beginning stands for one label."""
    max_age: timedelta

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy as its file would say it."""
        names = tuple(f"mx: {pattern}" for pattern in self.patterns)
        seconds = int(self.max_age.total_seconds())
        return ("version: STSv1", f"mode: {self.mode}", *names, f"max_age: {seconds}")

    def permits(self, host: str) -> bool:
        """Whether a mail exchange (in canonical form) is one that the policy names (§4.1)."""
        above = host.partition(".")[2]
        return any(
            above == pattern[2:] if pattern.startswith("*.") else host == pattern
            for pattern in self.patterns
        )


class InvalidPolicy(ValueError):
    """The text is no policy; the message says why."""


def record_id(texts: Sequence[bytes]) -> str | None:
    """The id in the TXT records of `_mta-sts.<domain>`; None if they announce no policy (§3.1)."""
    records = [text for text in texts if _RECORD_HEAD.match(text)]
    if len(records) != 1:
        return None
    try:
        text = records[0].decode("ascii")
    except UnicodeDecodeError:
        return None
    fields = [part.strip(" \t") for part in text.split(";")[1:]]
    if fields and not fields[-1]:
        fields.pop()
    found: dict[str, str] = {}
    for field in fields:
        match = _RECORD_FIELD.fullmatch(field)
        if match is None or match[1] in found:
            return None
        found[match[1]] = match[2]
    identity = found.get("id", "")
    return identity if _ID.fullmatch(identity) else None


def parse_policy(octets: bytes) -> StsPolicy:
    """The policy in a file. Raises `InvalidPolicy`."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidPolicy("it is not UTF-8") from None
    first: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(re.split(r"\r?\n", text), start=1):
        line = line.rstrip(" \t")
        if not line:
            continue
        key, colon, value = line.partition(":")
        if not colon or not _KEY.fullmatch(key):
            raise InvalidPolicy(f"line {number} is not a key and a value")
        if key == "mx":
            patterns.append(_pattern(value.strip(" \t"), number))
        else:
            # "All entries except for the first one MUST be ignored" (§3.2).
            first.setdefault(key, value.strip(" \t"))
    return _policy(first, patterns)


def _policy(fields: dict[str, str], patterns: list[str]) -> StsPolicy:
    if fields.get("version") != "STSv1":
        raise InvalidPolicy("its version is not STSv1")
    try:
        mode = Mode(fields.get("mode", ""))
    except ValueError:
        raise InvalidPolicy("its mode is not enforce, testing or none") from None
    seconds = fields.get("max_age", "")
    if not _SECONDS.fullmatch(seconds):
        raise InvalidPolicy("its max_age is not a number of seconds")
    if not patterns and mode is not Mode.NONE:
        raise InvalidPolicy("it names no mail exchange")
    max_age = max(MIN_AGE, min(timedelta(seconds=int(seconds)), MAX_AGE))
    return StsPolicy(mode, tuple(dict.fromkeys(patterns)), max_age)


def _pattern(text: str, number: int) -> str:
    wildcard = "*." if text.startswith("*.") else ""
    name = text.removeprefix(wildcard)
    try:
        # U-labels are not what §3.2 allows: the other side would compare something else.
        if not name.isascii():
            raise AddressError("it is not ASCII")
        return wildcard + parse_domain(name)
    except AddressError as error:
        raise InvalidPolicy(f"line {number}: no name of a mail exchange: {error.reason}") from None
