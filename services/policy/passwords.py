"""Passwords: hashed with argon2id (RFC 9106), in one bounded executor. The only user of argon2.

Guarantees: a check takes the same time whether or not there is a hash to compare with, since one is
made up; a password is never stored, logged or part of an error. At most `MAX_WAITING` checks wait,
so that guessing costs the guesser's own answers and not this process's memory.

Passwords are compared after the preparation of RFC 8265 §4.2 (OpaqueString), as far as it changes
anything in practice: NFC, and other spaces as the ASCII one.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2
import argon2.exceptions
from prometheus_client import Histogram

MIN_CHARACTERS = 8
MAX_OCTETS = 1024

# RFC 9106 §4 asks for as much as one can afford; this is OWASP's second choice, 20 to 50 ms on a
# server's core, and 38 MiB for two at a time.
_TIME_COST = 2
_MEMORY_KIB = 19 * 1024
_LANES = 1

WORKERS = 2
MAX_WAITING = 64
"""With two workers a second or two of work; whoever comes then is told to come again."""

SECONDS = Histogram(
    "gatepost_policy_password_seconds",
    "Time that hashing or checking a password took, waiting included.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

T = TypeVar("T")


class Busy(Exception):
    """Too many passwords are being checked."""


class BadPassword(ValueError):
    """A password that cannot be set; the message says why, without the password."""


class Passwords:
    """Hashes and checks passwords. `close` at the end."""

    def __init__(self, *, time_cost: int = _TIME_COST, memory_kib: int = _MEMORY_KIB) -> None:
        self._hasher = argon2.PasswordHasher(time_cost, memory_kib, _LANES)
        self._executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="argon2")
        self._waiting = 0
        # What the password of nobody is compared with.
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    async def hash(self, password: str) -> str:
        """The hash to store; empty for an empty password. Raises `BadPassword`, `Busy`."""
        if not password:
            return ""
        _check(password)
        return await self._run(lambda: self._hasher.hash(_prepared(password)))

    async def verify(self, stored: str, password: str) -> bool:
        """Whether the password belongs to the hash; never for an empty one. Raises `Busy`."""
        prepared = _prepared(password[:MAX_OCTETS])
        matches = await self._run(lambda: self._matches(stored or self._nobody, prepared))
        return matches and bool(stored)

    def close(self) -> None:
        """Take no more work. What runs is finished, which takes a fraction of a second."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _matches(self, stored: str, prepared: str) -> bool:
        try:
            return self._hasher.verify(stored, prepared)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            with SECONDS.time():
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1


def _prepared(password: str) -> str:
    spaces = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return unicodedata.normalize("NFC", spaces)


def _check(password: str) -> None:
    if len(password) < MIN_CHARACTERS:
        raise BadPassword(f"at least {MIN_CHARACTERS} characters, not {len(password)}")
    if len(password.encode(errors="replace")) > MAX_OCTETS:
        raise BadPassword(f"at most {MAX_OCTETS} octets")
    if any(unicodedata.category(character).startswith("C") for character in password):
        raise BadPassword("no control characters")
