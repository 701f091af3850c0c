"""Destinations as tokens of queue subjects, both ways.

A subject's tokens are separated by dots, and `*` and `>` are wildcards, so a domain is written with
`~` for `.`: `mail.example.org` is `mail~example~org`. An address literal becomes `ip4_192~0~2~1` or
`ip6_2001-db8--1` (hyphens for colons); no domain holds an underscore, so the two can never be
confused. Anything that is not canonical is refused, hence nothing a stranger sends can widen a
subject.
"""

from ipaddress import IPv4Address, IPv6Address

from services.common.mail.domain import (
    AddressError,
    ipv6_text,
    literal_text,
    parse_domain,
    parse_literal,
)

_IPV4 = "ip4_"
_IPV6 = "ip6_"


def subject_token(destination: str) -> str:
    """The token of a canonical domain or address literal; raises `AddressError` for others."""
    if destination.startswith("["):
        address = parse_literal(destination)
        canonical, token = literal_text(address), _literal_token(address)
    else:
        canonical = parse_domain(destination)
        token = canonical.replace(".", "~")
    if canonical != destination:
        raise AddressError("the destination is not in its canonical form")
    return token


def destination_of_token(token: str) -> str:
    """The destination that `subject_token` made `token` of; raises `AddressError`."""
    destination = _destination(token)
    if subject_token(destination) != token:
        raise AddressError("the token was not made from a destination")
    return destination


def _literal_token(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return _IPV4 + str(address).replace(".", "~")
    return _IPV6 + ipv6_text(address).replace(":", "-").replace(".", "~")


def _destination(token: str) -> str:
    dotted = token.replace("~", ".")
    if token.startswith(_IPV4):
        return f"[{dotted.removeprefix(_IPV4)}]"
    if token.startswith(_IPV6):
        return f"[IPv6:{dotted.removeprefix(_IPV6).replace('-', ':')}]"
    return dotted
