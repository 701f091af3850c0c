"""Bearer tokens in files: `service.token`, `operator.token` and `viewer.token` in one directory.

A file holds one token per line, with empty lines and lines of `#` ignored, so that an old and a
new token can both be good while clients change over. Files are read again when they change (a
Secret that was rotated, by an atomic swap of symlinks), at most every `RELOAD_SECONDS`.

Guarantees: a file that holds anything but tokens keeps what was read before, and says so in the
log and in a metric; a file that is gone or empty revokes its tokens. `ensure_tokens` never
touches a file that exists.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Gauge

from services.common.log import ERROR, INFO, WARNING, event
from services.common.rpc.auth import Role, Roles
from services.common.start import StartError

RELOAD_SECONDS = 2.0
# More is a mistake, and each is compared for every call.
MAX_TOKENS_PER_ROLE = 32
MAX_FILE_BYTES = 64 * 1024

TOKEN_ROLES = (Role.SERVICE, Role.OPERATOR, Role.VIEWER)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")  # RFC 6750 §2.1, and not guessable

REJECTED = Gauge(
    "gatepost_rpc_token_file_rejected",
    "1 while a role's token file cannot be used and the tokens read before it stay in force.",
    ["role"],
)

_log = logging.getLogger(__name__)


def token_file(directory: Path, role: Role) -> Path:
    """Where the tokens of a role are."""
    return directory / f"{role}.token"


def ensure_tokens(directory: Path) -> None:
    """Make a random token for every role whose file is missing (0600). Raises `StartError`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in TOKEN_ROLES:
            path = token_file(directory, role)
            if not path.exists():
                _create(path, f"{secrets.token_urlsafe(32)}\n")
                event(_log, INFO, "token created", role=role, file=path)
    except OSError as error:
        raise StartError(f"cannot create tokens: {error.filename}: {error.strerror}") from error


def _create(path: Path, text: str) -> None:
    """Whole or not at all, and readable by us alone from the first moment on."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.rename(path)


def parse_tokens(text: str) -> list[str]:
    """The tokens in a file's text; raises `ValueError` with the number of the line that is none."""
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"line {number} is not a token of 16 to 512 letters and digits")
        tokens.append(token)
    if len(tokens) > MAX_TOKENS_PER_ROLE:
        raise ValueError(f"{len(tokens)} tokens, more than {MAX_TOKENS_PER_ROLE}")
    return tokens


class Tokens:
    """The tokens of all roles, as digests; reads the files again as they change."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._read: dict[Role, bytes | None] = {}
        self._digests: dict[Role, list[bytes]] = {}
        self._roles: dict[bytes, Roles] = {}
        self._rejected: set[Role] = set()
        self._next_read = 0.0
        self._reload()

    def roles(self, token: str) -> Roles:
        """The roles that `token` carries; none if it is not known."""
        if self._clock() >= self._next_read:
            self._reload()
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found: Roles = frozenset()
        for known, roles in self._roles.items():
            # No early end: the time must not tell how many there are before a match.
            if hmac.compare_digest(known, digest):
                found = roles
        return found

    def _reload(self) -> None:
        self._next_read = self._clock() + RELOAD_SECONDS
        changed = [role for role in TOKEN_ROLES if self._read_role(role)]
        if changed:
            held: dict[bytes, set[Role]] = {}
            for role, digests in self._digests.items():
                for digest in digests:
                    held.setdefault(digest, set()).add(role)
            self._roles = {digest: frozenset(roles) for digest, roles in held.items()}

    def _read_role(self, role: Role) -> bool:
        """Read one file; true if the tokens of its role are others now."""
        path = token_file(self._directory, role)
        try:
            data = _read(path)
            if role in self._read and data == self._read[role] and role not in self._rejected:
                return False
            self._read[role] = data
            tokens = parse_tokens((data or b"").decode("ascii"))
        except (OSError, ValueError) as error:
            self._reject(role, path, str(error))
            return False
        self._rejected.discard(role)
        REJECTED.labels(role).set(0)
        if not tokens:
            level = WARNING if self._digests.get(role) else INFO
            event(_log, level, "no tokens of this role", role=role, file=path)
        self._digests[role] = [hashlib.sha256(token.encode()).digest() for token in tokens]
        return True

    def _reject(self, role: Role, path: Path, reason: str) -> None:
        if role not in self._rejected:
            event(_log, ERROR, "token file rejected", role=role, file=path, reason=reason)
        self._rejected.add(role)
        REJECTED.labels(role).set(1)


class TokenFile:
    """The first token of a file, for calls that we make; read again as the file changes."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._token = ""
        self._reason = ""
        self._next_read = 0.0

    def __call__(self) -> str:
        """The token, or the last one that could be read; empty if there never was one."""
        if self._clock() >= self._next_read:
            self._next_read = self._clock() + RELOAD_SECONDS
            self._reload()
        return self._token

    def _reload(self) -> None:
        reason = ""
        try:
            tokens = parse_tokens((_read(self._path) or b"").decode("ascii"))
            if tokens:
                self._token = tokens[0]
            else:
                reason = "no token in it"
        except (OSError, ValueError) as error:
            reason = str(error)
        if reason and reason != self._reason:
            event(_log, WARNING, "no usable token", file=self._path, reason=reason)
        self._reason = reason


def _read(path: Path) -> bytes | None:
    """The file's octets, or None if there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} octets")
    return data
