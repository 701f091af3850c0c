"""xtext, the encoding of DSN and AUTH parameters: RFC 3461 §4.

Decoded values must be printable ASCII: `+0D+0A` in an ENVID would otherwise become a line of its
own in the delivery report that repeats it.
"""

import re

from services.common.mail.printable import is_one_line

# Hexadecimal below 20 would be a control character and above 7F half of some other character.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[2-7][0-9A-F])+")
_UNITEXT = re.compile(r"(?:[!-*,-<>-~\u0080-\U0010ffff]|\+[2-7][0-9A-F])+")
_HEX_CHARACTER = re.compile(r"\+([0-9A-F]{2})")
_MUST_ENCODE = re.compile(r"[^!-*,-<>-~]")


class XtextError(ValueError):
    """Not xtext, or text that is not printable."""


def decode_xtext(encoded: str, *, utf8: bool = False) -> str:
    """The printable text that `encoded` stands for; raises `XtextError`.

    With `utf8`, characters outside ASCII may stand for themselves (utf-8-addr-unitext, RFC 6533
    §3).
    """
    if not (_UNITEXT if utf8 else _XTEXT).fullmatch(encoded):
        raise XtextError("the value is not xtext of printable characters")
    decoded = _HEX_CHARACTER.sub(lambda match: chr(int(match[1], 16)), encoded)
    if not is_one_line(decoded):
        raise XtextError("the value decodes to something that is not printable")
    return decoded


def encode_xtext(text: str) -> str:
    """`text` as xtext; raises `XtextError` unless it is printable ASCII and not empty."""
    if not (text and text.isascii() and text.isprintable()):
        raise XtextError("only printable ASCII can be written as xtext")
    return _MUST_ENCODE.sub(lambda match: f"+{ord(match[0]):02X}", text)
