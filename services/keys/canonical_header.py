"""Relaxed canonicalisation of header fields (RFC 6376 §3.4.2), by dkimpy. The only module that
imports it.

Deviation from dkimpy: it strips vertical tabs and form feeds from the ends of a value too, which
are no white space to RFC 6376, so other verifiers would come to another hash.
"""

from dkim.canonicalization import compress_whitespace, unfold_header_value

_WHITE_SPACE = b" \t\r\n"


def relaxed(name: bytes, value: bytes) -> bytes:
    """The field `name`: `value` (all that follows the colon) in canonical form, with its CRLF.

    `name` is in lower case.
    """
    canonical = value.strip(_WHITE_SPACE)
    # Most fields need neither, and finding that out is cheaper than a regular expression.
    if b"\n" in canonical:
        canonical = unfold_header_value(canonical)
    if b"  " in canonical or b"\t" in canonical:
        canonical = compress_whitespace(canonical)
    return b"%b:%b\r\n" % (name, canonical)
