"""DMARC policy records: RFC 9989 §4.7 (tags) and §4.8 (syntax).

Unknown tags and values that make no sense are passed over in favour of the defaults; only a record
whose `v` is not first and exactly `DMARC1` is no record at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

MAX_RECORD_OCTETS = 4096


class Preference(IntEnum):
    """What a domain asks for mail that fails, from mildest to strongest."""

    NONE = 0
    QUARANTINE = 1
    REJECT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record. None means that the tag is not there."""

    text: str
    policy: Preference | None
    subdomains: Preference | None
    nonexistent: Preference | None
    strict_dkim: bool
    strict_spf: bool
    psd: str
    """`y`, `n` or `u`."""
    testing: bool
    is_broken: bool
    """A policy tag makes no sense, and there is nobody to tell (§4.10.1): no DMARC processing."""


def parse_record(octets: bytes) -> Record | None:
    """The record in a TXT record's text; None if it is none."""
    return _parsed(octets) if len(octets) <= MAX_RECORD_OCTETS else None


# The domains of a mail are walked several times, and the same domains write again and again.
@lru_cache(maxsize=1024)
def _parsed(octets: bytes) -> Record | None:
    text = octets.decode("ascii", errors="replace")
    names, values = _tags(text)
    if not names or names[0] != "v" or values["v"] != "DMARC1":
        return None
    preferences = {name: _preference(values.get(name)) for name in ("p", "sp", "np")}
    senseless = any(name in values and preferences[name] is None for name in preferences)
    reports = any(
        address.strip().lower().startswith("mailto:")
        for address in values.get("rua", "").split(",")
    )
    if senseless and reports:
        preferences = {"p": Preference.NONE, "sp": None, "np": None}
    return Record(
        text=text,
        policy=preferences["p"],
        subdomains=preferences["sp"],
        nonexistent=preferences["np"],
        strict_dkim=values.get("adkim", "").lower() == "s",
        strict_spf=values.get("aspf", "").lower() == "s",
        psd=psd if (psd := values.get("psd", "").lower()) in ("y", "n") else "u",
        testing=values.get("t", "").lower() == "y",
        is_broken=senseless and not reports,
    )


def preference_for(record: Record, *, is_own: bool, exists: bool) -> Preference:
    """What the record, the author's own or one of a domain above, asks for the author's domain."""
    wanted = record.policy
    if not is_own and not exists and record.nonexistent is not None:
        wanted = record.nonexistent
    elif not is_own and record.subdomains is not None:
        wanted = record.subdomains
    wanted = wanted or Preference.NONE
    # §4.7, t: one level below.
    return Preference(max(wanted - 1, 0)) if record.testing else wanted


def _tags(text: str) -> tuple[list[str], dict[str, str]]:
    """The names in their order and the first value of each."""
    names: list[str] = []
    values: dict[str, str] = {}
    for part in text.split(";"):
        name, found, value = part.partition("=")
        if found:
            names.append(name.strip(" \t").lower())
            values.setdefault(names[-1], value.strip(" \t"))
    return names, values


def _preference(value: str | None) -> Preference | None:
    return Preference.__members__.get(value.upper()) if value is not None else None
