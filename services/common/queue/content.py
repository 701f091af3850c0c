"""What the ingress and delivery must agree on about content in the CONTENT stream.

A content is a row of chunks, `content.<id>.1` to `content.<id>.<n>`, which joined in this order are
the mail. They may be stored in any order: the ingress stores the body while it arrives and chunk 1,
which holds the header with its trace fields, last. So the hash that guards a content is made of the
chunks' own hashes and not of the content from its beginning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

MAX_INLINE_OCTETS: Final = 256 * 1024
"""A larger content never stands in a record. NATS takes messages of 1 MiB by default."""

MAX_CHUNK_OCTETS: Final = 768 * 1024
"""The most that one chunk holds: with its headers it stays below NATS's 1 MiB."""


def chunk_digest(chunk: bytes) -> bytes:
    """SHA-256 of one chunk, 32 octets."""
    return hashlib.sha256(chunk).digest()


def content_digest(chunk_digests: Sequence[bytes]) -> bytes:
    """The `sha256` of a `ContentReference`, from the chunks' digests in their order."""
    return hashlib.sha256(b"".join(chunk_digests)).digest()
