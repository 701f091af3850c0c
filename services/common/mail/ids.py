"""Identifiers of sessions, messages and notifications: letters, digits and hyphens only.

They appear in queue subjects, header fields, log lines and replies, so they hold nothing that any
of those could misread. A session id sorts by the time it was made: 40 bits of milliseconds and 40
random bits, in the base 32 alphabet whose order is that of ASCII (RFC 4648 §7, lower-case). Within
a process ids strictly increase, so one process never makes one twice; two processes would need the
same random bits in the same millisecond.
"""

import base64
import hashlib
import os
import re
import threading
import time

SESSION_ID_CHARACTERS = 16
MAX_ID_CHARACTERS = 64
NOTIFICATION_PREFIX = "n"

_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_BITS_PER_CHARACTER = 5
# 34 years of milliseconds; then ids start from zero again, which costs only their order.
_TIME_BITS = 40
# At 1,000 sessions a second over many processes two ids are the same once in 70 years.
_RANDOM_BITS = SESSION_ID_CHARACTERS * _BITS_PER_CHARACTER - _TIME_BITS
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
_DIGEST_CHARACTERS = 26  # 130 bits
_MESSAGE_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)


class _Sequence:
    """The last number given out; ids must increase even if the clock steps back or many fall in one
    millisecond.
    """

    def __init__(self) -> None:
        self._last = -1
        self._lock = threading.Lock()

    def next(self, milliseconds: int, random: int) -> int:
        candidate = milliseconds << _RANDOM_BITS | random
        with self._lock:
            # Going on by a random step rather than by one keeps the next id hard to guess.
            self._last = candidate if candidate > self._last else self._last + 1 + random
            return self._last


_sequence = _Sequence()


def new_session_id() -> str:
    """A new id for one connection, 16 characters."""
    milliseconds = (time.time_ns() // 1_000_000 - _EPOCH_MS) % (1 << _TIME_BITS)
    random = int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big")
    return _encoded(_sequence.next(milliseconds, random))


def message_id(session: str, n: int) -> str:
    """The id of the n-th transaction (from 1) of a session."""
    if n < 1 or not is_message_id(session):
        raise ValueError("a message id needs a session id and a positive number")
    return f"{session}-{n}"


def notification_id(message: str, reason: str, *parts: str) -> str:
    """The id of a notification about `message`: the same arguments give the same id, so it is
    queued only once.
    """
    digest = hashlib.sha256()
    for part in (message, reason, *parts):
        encoded = part.encode(errors="surrogatepass")
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    text = base64.b32encode(digest.digest()).decode("ascii").lower()
    return NOTIFICATION_PREFIX + text[:_DIGEST_CHARACTERS]


def is_message_id(text: str) -> bool:
    """Whether `text` may stand as an id in a subject, a key or a file name (not whether such a
    message exists).
    """
    return len(text) <= MAX_ID_CHARACTERS and _MESSAGE_ID.fullmatch(text) is not None


def _encoded(number: int) -> str:
    shifts = range((SESSION_ID_CHARACTERS - 1) * _BITS_PER_CHARACTER, -1, -_BITS_PER_CHARACTER)
    return "".join(_ALPHABET[number >> shift & 31] for shift in shifts)
