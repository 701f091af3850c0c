"""Text from outside, made safe to stand on one line of a log, a reply or a header field.

HELO names, addresses, ENVID, peers' replies and reverse DNS names are chosen by strangers. Whoever
writes one of them anywhere passes it through `one_line` first: what comes back has no line end, no
control character, no direction override and a known length, so it can neither start a line of its
own nor repaint the one it stands in.
"""

ELLIPSIS = "..."
REPLACEMENT = "?"
# Zero-width (non-)joiners: needed to spell Persian and Indic words, although Unicode counts them as
# format characters.
_JOINERS = "\u200c\u200d"


def is_visible(character: str) -> bool:
    """Whether a character may stand in one line of text: no control, line end, surrogate, direction
    mark.
    """
    return character.isprintable() or character in _JOINERS


def is_one_line(text: str) -> bool:
    """Whether every character is visible or an ordinary space."""
    return text.isprintable() or all(map(is_visible, text))


def one_line(text: str, *, limit: int) -> str:
    """`text` with line ends and tabs made spaces, other invisible characters made `?`, trimmed and
    cut at `limit`.

    `limit` counts UTF-8 octets of the result, the ellipsis included. Never raises; may return "".
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text.strip(" ")  # as nearly all of it is
    clean = text if text.isprintable() else "".join(map(_visible, text))
    return _cut(clean.strip(" "), limit)


def _visible(character: str) -> str:
    if character in "\r\n\t":
        return " "
    return character if is_visible(character) else REPLACEMENT


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit and text.isascii():
        return text
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    room = max(limit - len(ELLIPSIS), 0)
    return (encoded[:room].decode(errors="ignore").rstrip(" ") + ELLIPSIS)[: max(limit, 0)]
