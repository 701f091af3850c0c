"""The names that a test's DNS knows: records by name and type, as text.

Shared by the DNS server and the resolver double, so that both read the same table and agree on what
is missing: a name that has other records, or names below it, exists (no data); any other does not
(no such name).

    Zone({("a.test", "MX"): ["10 mx.a.test."], ("a.test", "TXT"): ["v=spf1 -all"]})

Values are in zone-file form, names in them absolute with or without the final dot. A TXT value
need not be quoted: without quotes it is one text, split at 255 octets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import yaml

Key: TypeAlias = tuple[str, str]
"""A name and a record type."""

NameOrKey: TypeAlias = str | Key
"""A name means all its records; a name and a type those alone."""

_MAX_STEPS = 20  # aliases followed; beyond it is a loop
_MAX_STRING_OCTETS = 255


@dataclass(frozen=True, slots=True)
class Step:
    """The records of one owner, on the way from the name asked for to the end of its aliases."""

    owner: str
    rdtype: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """What the zone has for a question."""

    steps: tuple[Step, ...]
    last: str
    """The name at the end of the aliases."""
    found: bool
    """The last step holds what was asked for."""
    exists: bool
    loops: bool


class Zone(MutableMapping[Key, list[str]]):
    """Records by (name, type); changeable at any time. Names and types in any spelling."""

    def __init__(self, records: Mapping[Key, Iterable[str]] | None = None) -> None:
        self._records: dict[Key, list[str]] = {}
        for key, values in (records or {}).items():
            self[key] = list(values)

    def __getitem__(self, key: Key) -> list[str]:
        return self._records[_key(key)]

    def __setitem__(self, key: Key, values: list[str]) -> None:
        name, rdtype = _key(key)
        for value in values:
            rdata_of(rdtype, value)  # a typing error in a table is found where it is made
        self._records[name, rdtype] = values

    def __delitem__(self, key: Key) -> None:
        del self._records[_key(key)]

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def exists(self, name: str) -> bool:
        """Whether anything is known at or below the name."""
        name = spelling(name)
        return any(owner == name or owner.endswith("." + name) for owner, _ in self)

    def way(self, name: str, rdtype: str, *, follow: bool = True) -> Way:
        """What a server has to say; with `follow`, to the end of the aliases."""
        owner, steps = spelling(name), list[Step]()
        while len(steps) < _MAX_STEPS:
            values = self._records.get((owner, rdtype))
            if values:
                steps.append(Step(owner, rdtype, tuple(values)))
                return Way(tuple(steps), owner, found=True, exists=True, loops=False)
            alias = self._records.get((owner, "CNAME"))
            if not alias:
                exists = self.exists(owner)
                return Way(tuple(steps), owner, found=False, exists=exists, loops=False)
            steps.append(Step(owner, "CNAME", tuple(alias)))
            owner = spelling(alias[0])
            if not follow:
                return Way(tuple(steps), owner, found=False, exists=True, loops=False)
        return Way(tuple(steps), owner, found=False, exists=True, loops=True)


def spelling(name: str) -> str:
    """The spelling that names are compared in."""
    return name.lower().removesuffix(".") or "."


def listed(names: Iterable[NameOrKey], name: str, rdtype: str) -> bool:
    """Whether the question is about one of the names, or of the (name, type) pairs."""
    return any(
        spelling(each) == spelling(name)
        if isinstance(each, str)
        else (spelling(each[0]), each[1].upper()) == (spelling(name), rdtype)
        for each in names
    )


def rdata_of(rdtype: str, value: str) -> dns.rdata.Rdata:
    """A value of the table as a record. Raises what dnspython raises for nonsense."""
    if rdtype == "TXT" and not value.startswith('"'):
        value = " ".join(_quoted(part) for part in _parts(value.encode()))
    return dns.rdata.from_text(
        dns.rdataclass.IN,
        dns.rdatatype.from_text(rdtype),
        value,
        origin=dns.name.root,
        relativize=False,
    )


def read_records(path: Path) -> dict[Key, list[str]]:
    """Records from a file: YAML (`example.test: {MX: ["10 mx.example.test"]}`, by its suffix) or
    lines of `name type value`, blank lines and those beginning with `;` left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".yaml", ".yml"}:
        return {
            (name, rdtype): values
            for name, types in yaml.safe_load(text).items()
            for rdtype, values in types.items()
        }
    records: dict[Key, list[str]] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith(";"):
            name, rdtype, value = line.split(maxsplit=2)
            records.setdefault((spelling(name), rdtype.upper()), []).append(value.strip())
    return records


def _key(key: Key) -> Key:
    name, rdtype = key
    return spelling(name), str(rdtype).upper()


def _parts(text: bytes) -> list[bytes]:
    starts = range(0, len(text), _MAX_STRING_OCTETS)
    return [text[start : start + _MAX_STRING_OCTETS] for start in starts] or [b""]


def _quoted(part: bytes) -> str:
    plain = "".join(
        chr(octet) if 0x20 <= octet < 0x7F and octet not in b'"\\' else f"\\{octet:03d}"
        for octet in part
    )
    return f'"{plain}"'
