"""What the JSON schema says of each type of value: regular expressions for texts.

The chart's values are checked against them before anything is installed, and editors use them.
They never refuse what the parsers of the types take, and refuse what an expression can tell. What
it cannot is left to the parsers, such as U-labels: all that holds other characters than printable
ASCII is let through. An expression means the same in Python, in ECMA 262 and in Go (no look-ahead,
no `\\d`). Where one text has several, each is for another mistake, since Helm shows the expression
that does not match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field, WithJsonSchema
from pydantic.config import JsonDict

_NUMBER: Final = r"[0-9]+(\.[0-9]+)?"
_ABOVE_ZERO: Final = r"([0-9]*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)"
_TIME_UNIT: Final = r"\s*(ms|s|m|h|d)\s*"
_IPV4: Final = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"
_IPV6: Final = r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[^/]+)?"
_NETWORK: Final = rf"({_IPV4}(/[0-9.]+)?|{_IPV6}(/[0-9]+)?)"
_LABELS: Final = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
_MAILBOX: Final = r'(".+"|[^\s"@]+)@(\[.+\]|[A-Za-z0-9.-]+)'
_PORT: Final = r"0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-5][0-9]{3})"
_OTHER: Final = r"[^ -~]"
"""A character that is for the parser to judge."""
_NO_HYPHEN_AT_AN_EDGE: Final = r"^[^.-]([^.]*[^.-])?(\.[^.-]([^.]*[^.-])?)*$"
_NO_NUMBER_AT_THE_END: Final = r"[^0-9.][^.]*$"
"""Of a name, which would otherwise be an address that somebody mistyped."""

DURATION: Final = (rf"^(0|\s*{_NUMBER}{_TIME_UNIT})$",)
POSITIVE_DURATION: Final = (rf"^\s*{_ABOVE_ZERO}{_TIME_UNIT}$",)
SIZE: Final = rf"^\s*{_NUMBER}\s*(B|[kKMGT]B|[KMGT]iB)?\s*$"
NETWORK: Final = (rf"^{_NETWORK}$",)
HOST_PORT: Final = (rf"^(\[\S*\]|[^:\s]*):(0+|{_PORT})$",)
DNS_SERVER: Final = (rf"^\s*(\[?{_IPV4}\]?|\[?{_IPV6}\]?)(:{_PORT})?\s*$",)
DOMAIN: Final = (rf"^{_LABELS}$|{_OTHER}", _NO_HYPHEN_AT_AN_EDGE, _NO_NUMBER_AT_THE_END)
HOST: Final = (
    rf"^({_LABELS}|\[?({_IPV4}|{_IPV6})\]?)$|{_OTHER}",
    rf"^\[?{_IPV4}\]?$|:|{_NO_NUMBER_AT_THE_END}",
)
NEXT_HOP: Final = (
    r"^(smtp:.+|lmtp:.+:[0-9]+)$",
    rf"^[a-z]+:({_LABELS}|\[\S+\])(:{_PORT})?$|{_OTHER}",
    rf"^[a-z]+:\[?{_IPV4}\]?(:|$)|\](:|$)|[^0-9.:][^.:]*(:[0-9]+)?$",
)
ADDRESS: Final = (rf"^{_MAILBOX}$|{_OTHER}", rf"\]$|{_NO_NUMBER_AT_THE_END}")
SENDER: Final = (
    rf"^\s*({_LABELS}|{_NETWORK}|{_MAILBOX})\s*$|{_OTHER}",
    rf"^\s*{_IPV4}\s*$|[/:\]]|{_NO_NUMBER_AT_THE_END}",
)


def text(patterns: Sequence[str], *examples: str, blank: bool = False) -> dict[str, Any]:
    """A text that matches all patterns; with `blank`, nothing at all may stand there too."""
    if blank:
        patterns = [f"^$|{pattern}" for pattern in patterns]
    matching: dict[str, Any] = (
        {"pattern": patterns[0]}
        if len(patterns) == 1
        else {"allOf": [{"pattern": pattern} for pattern in patterns]}
    )
    return {
        "type": ["string", "null"] if blank else "string",
        **matching,
        **({"examples": list(examples)} if examples else {}),
    }


def of_text(patterns: Sequence[str], *examples: str, blank: bool = False) -> WithJsonSchema:
    """`text` as the schema of a type."""
    return WithJsonSchema(text(patterns, *examples, blank=blank))


def octets_between(least: int, most: int | None = None) -> Any:
    """Bounds of a size. The schema has them for numbers; the chart checks texts by itself."""
    bounds: JsonDict = {"minimum": least}
    if most is not None:
        bounds["maximum"] = most
    return Field(ge=least, le=most, json_schema_extra=bounds)
