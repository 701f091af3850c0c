"""xtext, the encoding of DSN and AUTH parameters: RFC 3461 §4.

Decoded values must be printable ASCII: `+0D+0A` in an ENVID would otherwise become a line of its
own in the delivery report that repeats it.
"""

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_HEX_CHARACTER = re.compile(r"\+([0-9A-F]{2})")
_MUST_ENCODE = re.compile(r"[^!-*,-<>-~]")


class XtextError(ValueError):
    """Not xtext, or text that does not decode to (or is not) printable ASCII."""


def decode_xtext(encoded: str) -> str:
    """The printable ASCII text that `encoded` stands for; raises `XtextError`."""
    if not _XTEXT.fullmatch(encoded):
        raise XtextError("the value is not xtext")
    decoded = _HEX_CHARACTER.sub(lambda match: chr(int(match[1], 16)), encoded)
    if not (decoded.isascii() and decoded.isprintable()):
        raise XtextError("the value decodes to something other than printable ASCII")
    return decoded


def encode_xtext(text: str) -> str:
    """`text` as xtext; raises `XtextError` unless it is printable ASCII and not empty."""
    if not (text and text.isascii() and text.isprintable()):
        raise XtextError("only printable ASCII can be written as xtext")
    return _MUST_ENCODE.sub(lambda match: f"+{ord(match[0]):02X}", text)
