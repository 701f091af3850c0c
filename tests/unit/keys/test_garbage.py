"""Whatever people or programs write where keys and records belong, it is read or refused."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.keys import key_record
from services.keys.file_store import _parse
from services.keys.key import Key, KeyDataError, KeyType, from_fields, to_fields
from services.keys.private_key import PrivateKeyError, from_pem, generate
from services.keys.secret_form import foreign_content, new_secret, read_secret

_PRIVATE = generate(KeyType.ED25519, bits=256)
_KEY = Key(
    domain="a.test",
    selector="s1",
    key_type=KeyType.ED25519,
    bits=256,
    public=_PRIVATE.public,
    created=datetime(2026, 1, 1, tzinfo=UTC),
)
_FIELDS = to_fields(_KEY)
_SECRET = new_secret(_KEY, _PRIVATE)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(_FIELDS)), st.text(max_size=40), max_size=4))
def test_fields(changes: dict[str, str]) -> None:
    with suppress(KeyDataError):
        key = from_fields({**_FIELDS, **changes})
        assert from_fields(to_fields(key)) == key


@settings(deadline=None)
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_files(content: bytes) -> None:
    with suppress(KeyDataError, PrivateKeyError):
        _parse("s1._domainkey.a.test.json", content)


@settings(deadline=None)
@given(st.sampled_from(["metadata", "data", "type", "kind"]), _JSON)
def test_secrets(part: str, value: Any) -> None:
    secret = {**_SECRET, part: value}
    with suppress(KeyDataError, PrivateKeyError):
        read_secret(secret)
    with suppress(KeyDataError):
        foreign_content(secret, "")


@settings(deadline=None)
@given(st.sampled_from(["labels", "annotations", "name", "resourceVersion"]), _JSON)
def test_metadata(part: str, value: Any) -> None:
    secret = {**_SECRET, "metadata": {**_SECRET["metadata"], part: value}}
    with suppress(KeyDataError, PrivateKeyError):
        read_secret(secret)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100) | st.just(key_record.value(_KEY).encode()), max_size=3))
def test_records(published: list[bytes]) -> None:
    objection = key_record.objection(_KEY, published)
    assert objection.isprintable()
    assert (objection == "") is (published == [key_record.value(_KEY).encode()])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_pem(content: bytes) -> None:
    with suppress(PrivateKeyError):
        from_pem(content)


@settings(deadline=None)
@given(st.integers(0, 120), st.binary(min_size=1, max_size=4))
def test_damaged_pem(place: int, damage: bytes) -> None:
    pem = _PRIVATE.pem()
    with suppress(PrivateKeyError):
        from_pem(pem[:place] + damage + pem[place + len(damage) :])
