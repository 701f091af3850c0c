"""The ESMTP parameters of MAIL and RCPT: syntax of RFC 5321 §4.1.2.

SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT (RFC 3461, RFC
6533), AUTH (RFC 4954). A parameter that nobody knows, or whose extension was not offered
(REQUIRETLS among them), is 555 5.5.4 (RFC 5321 §4.1.1.11); a bad value, a missing one, or the same
parameter twice is 501 5.5.4. Whether a size is acceptable is not decided here.
"""

import re
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import TypeVar

from services.common.mail.parameters import (
    ALL_EXTENSIONS,
    Body,
    Extension,
    MailParameters,
    Notify,
    RecipientParameters,
    Ret,
    is_utf8_type,
)
from services.common.mail.reply import BAD_ARGUMENTS, UNKNOWN_PARAMETER, Reply
from services.common.mail.xtext import decode_xtext

# RFC 3461 §4.2 and §4.4, RFC 4954 §5: octets of the value as it stands on the wire.
MAX_ENVID_OCTETS = 100
MAX_ORCPT_OCTETS = 500
MAX_AUTH_OCTETS = 500
MAX_SIZE_DIGITS = 20  # RFC 1870 §3

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_DIGITS = re.compile(rf"[0-9]{{1,{MAX_SIZE_DIGITS}}}")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")

_MAIL_KEYWORDS = {
    "SIZE": Extension.SIZE,
    "BODY": Extension.EIGHT_BIT_MIME,
    "SMTPUTF8": Extension.SMTPUTF8,
    "RET": Extension.DSN,
    "ENVID": Extension.DSN,
    "AUTH": Extension.AUTH,
}
_RECIPIENT_KEYWORDS = {"NOTIFY": Extension.DSN, "ORCPT": Extension.DSN}

_Value = TypeVar("_Value")
_Keyword = TypeVar("_Keyword", bound=StrEnum)


class ParameterError(ValueError):
    """Parameters that are refused; `reply` is what the client is told, the message says what was
    wrong.
    """

    def __init__(self, reply: Reply, detail: str) -> None:
        super().__init__(detail)
        self.reply = reply


def parse_mail_parameters(
    text: str, *, offered: Collection[str] = ALL_EXTENSIONS
) -> MailParameters:
    """The parameters after the reverse-path; `offered` holds the EHLO keywords. Raises
    `ParameterError`.
    """
    given = _split(text, known=_MAIL_KEYWORDS, offered=offered)
    return MailParameters(
        size=_optional(given, "SIZE", _size),
        body=_optional(given, "BODY", lambda value: _member(Body, value)),
        smtputf8=_flag(given, "SMTPUTF8"),
        ret=_optional(given, "RET", lambda value: _member(Ret, value)),
        envid=_optional(given, "ENVID", lambda value: _xtext(value, limit=MAX_ENVID_OCTETS)),
        auth=_optional(given, "AUTH", lambda value: _xtext(value, limit=MAX_AUTH_OCTETS)),
    )


def parse_recipient_parameters(
    text: str, *, offered: Collection[str] = ALL_EXTENSIONS, smtputf8: bool = False
) -> RecipientParameters:
    """The parameters after a forward-path; `smtputf8`: what MAIL said. Raises `ParameterError`."""
    given = _split(text, known=_RECIPIENT_KEYWORDS, offered=offered)
    return RecipientParameters(
        notify=_optional(given, "NOTIFY", _notify) or frozenset(),
        orcpt=_optional(given, "ORCPT", lambda value: _orcpt(value, smtputf8=smtputf8)),
    )


def _split(
    text: str, *, known: dict[str, Extension], offered: Collection[str]
) -> dict[str, str | None]:
    """Upper-case keywords with their values (None without `=`), all of them known and offered."""
    given: dict[str, str | None] = {}
    for parameter in filter(None, text.split(" ")):
        keyword, equals, value = parameter.partition("=")
        name = keyword.upper()
        if not _KEYWORD.fullmatch(keyword):
            raise ParameterError(BAD_ARGUMENTS, "a parameter does not begin with a keyword")
        if name not in known or known[name] not in offered:
            raise ParameterError(UNKNOWN_PARAMETER, "a parameter is unknown or was not offered")
        if name in given:
            raise ParameterError(BAD_ARGUMENTS, f"{name} is given twice")
        given[name] = value if equals else None
    return given


def _optional(
    given: dict[str, str | None], name: str, parse: Callable[[str], _Value]
) -> _Value | None:
    if name not in given:
        return None
    value = given[name]
    try:
        if value:
            return parse(value)
    except ValueError as error:
        raise ParameterError(BAD_ARGUMENTS, f"{name}: {error}") from error
    raise ParameterError(BAD_ARGUMENTS, f"{name} needs a value")


def _flag(given: dict[str, str | None], name: str) -> bool:
    if given.get(name) is not None:
        raise ParameterError(BAD_ARGUMENTS, f"{name} takes no value")
    return name in given


def _size(value: str) -> int:
    if not _DIGITS.fullmatch(value):
        raise ValueError("not a number of octets")
    return int(value)


def _member(kind: type[_Keyword], value: str) -> _Keyword:
    try:
        return kind(value.upper())
    except ValueError as error:
        raise ValueError(f"not one of {', '.join(kind)}") from error


def _notify(value: str) -> frozenset[Notify]:
    events = frozenset(_member(Notify, event) for event in value.split(","))
    if Notify.NEVER in events and len(events) > 1:
        raise ValueError("NEVER stands alone")
    return events


def _xtext(value: str, *, limit: int) -> str:
    if len(value) > limit:
        raise ValueError(f"longer than {limit} octets")
    decode_xtext(value)
    return value


def _orcpt(value: str, *, smtputf8: bool) -> str:
    """`rfc822;user+40example.org`, or the `utf-8` type of RFC 6533 §3, whose address may be bare
    UTF-8 under SMTPUTF8.
    """
    kind, semicolon, address = value.partition(";")
    if not semicolon or not _ADDRESS_TYPE.fullmatch(kind):
        raise ValueError("not an address type, a semicolon and an address")
    if len(value.encode(errors="replace")) > MAX_ORCPT_OCTETS:
        raise ValueError(f"longer than {MAX_ORCPT_OCTETS} octets")
    decode_xtext(address, utf8=smtputf8 and is_utf8_type(kind))
    return value
