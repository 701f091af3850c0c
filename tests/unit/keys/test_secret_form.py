"""A key as a Secret: what people see of it, and what an edit by hand can do to it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.keys.key import Key, KeyDataError, KeyType
from services.keys.private_key import PrivateKeyError, generate
from services.keys.secret_form import (
    PRIVATE_FIELD,
    change,
    erasure,
    meant_by,
    new_secret,
    read_secret,
)
from services.keys.state import KeyState, Step

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_PRIVATE = generate(KeyType.ED25519, bits=256)
_KEY = Key(
    domain="example.test",
    selector="ed1",
    key_type=KeyType.ED25519,
    bits=256,
    public=_PRIVATE.public,
    created=_NOW,
    request_id="request 1",
)

Json = dict[str, Any]


def _stored(key: Key = _KEY) -> Json:
    secret = new_secret(key, _PRIVATE)
    secret["metadata"]["resourceVersion"] = "42"
    return secret


def _merged(target: Json, patch: Json) -> Json:
    """RFC 7396, as the API server applies it."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            target[name] = _merged(target.get(name, {}), value)
        else:
            target[name] = value
    return target


def test_people_find_their_keys_by_labels() -> None:
    metadata = _stored()["metadata"]
    assert metadata["name"] == "ed1.domainkey.example.test"
    assert metadata["labels"] == {
        "app.kubernetes.io/part-of": "gatepost",
        "app.kubernetes.io/component": "dkim-key",
        "app.kubernetes.io/managed-by": "gatepost",
        "gatepost/domain": "example.test",
        "gatepost/selector": "ed1",
        "gatepost/key-type": "ed25519",
        "gatepost/bits": "256",
        "gatepost/state": "pending",
    }
    assert metadata["annotations"]["gatepost/created"] == "2026-01-01T00:00:00Z"
    assert _stored()["type"] == "Opaque"


def test_only_the_data_is_private() -> None:
    secret = _stored()
    data = secret.pop("data")
    assert base64.b64decode(data[PRIVATE_FIELD]) == _PRIVATE.pem()
    assert _PRIVATE.pem().decode().splitlines()[1] not in json.dumps(secret)


@pytest.mark.parametrize(
    "key",
    [
        _KEY,
        replace(_KEY, domain=".".join(["d" * 60, "e" * 60, "test"])),
        replace(_KEY, selector="s" * 63),
        replace(_KEY, selector="mail.2026"),
        replace(_KEY, state=KeyState.RETIRED, published=_NOW, retired=_NOW, expires=_NOW),
    ],
)
def test_what_is_written_is_read(key: Key) -> None:
    secret = _stored(key)
    entry = read_secret(secret)
    assert (entry.key, entry.version) == (key, "42")
    assert entry.private is not None
    assert entry.private.pem() == _PRIVATE.pem()
    assert meant_by(entry.name) == (key.domain, key.selector)


def test_a_change_replaces_what_it_changes_and_names_its_version() -> None:
    published = _KEY.stepped(Step.SEEN, _NOW)
    patch = change(_KEY, published, version="42")
    assert patch["metadata"]["resourceVersion"] == "42"
    assert "data" not in patch
    assert read_secret(_merged(_stored(), patch)).key == published
    pending = published.stepped(Step.UNSEEN, _NOW)
    back = change(published, pending, version="43")
    assert read_secret(_merged(_stored(published), back)).key == pending


def test_an_erasure_leaves_nothing_private() -> None:
    retired = replace(_KEY, state=KeyState.RETIRED)
    deleted = retired.stepped(Step.DELETE, _NOW)
    secret = _merged(_stored(retired), erasure(retired, deleted, version="42"))
    assert secret["data"] == {}
    entry = read_secret(secret)
    assert (entry.key, entry.private) == (deleted, None)


def test_what_others_put_on_a_secret_stays() -> None:
    secret = _stored()
    secret["metadata"]["labels"]["team"] = "mail"
    secret["metadata"]["annotations"]["note"] = "ours"
    patched = _merged(secret, change(_KEY, _KEY.stepped(Step.SEEN, _NOW), version="42"))
    assert patched["metadata"]["labels"]["team"] == "mail"
    assert patched["metadata"]["annotations"]["note"] == "ours"


_OTHER = base64.b64encode(generate(KeyType.ED25519, bits=256).pem()).decode()


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda s: s.pop("data"), "not a private key"),
        (lambda s: s["data"].pop(PRIVATE_FIELD), "not a private key"),
        (lambda s: s["data"].update({PRIVATE_FIELD: "%"}), "not base64"),
        (lambda s: s["data"].update({PRIVATE_FIELD: "Z2FyYmFnZQ=="}), "not a private key"),
        (lambda s: s["data"].update({PRIVATE_FIELD: _OTHER}), "does not belong"),
        (lambda s: s.update(data=["x"]), "data is not an object"),
        (lambda s: s["metadata"]["labels"].update({"gatepost/state": "on"}), "state is none of"),
        (lambda s: s["metadata"]["labels"].pop("gatepost/domain"), "domain is not"),
        (
            lambda s: s["metadata"]["labels"].update({"gatepost/selector": "x"}),
            "another domain or selector",
        ),
        (lambda s: s["metadata"].pop("annotations"), "created is missing"),
        (lambda s: s["metadata"]["annotations"].update({"gatepost/public": "AA"}), "public"),
        (lambda s: s.pop("metadata"), "created is missing"),
    ],
    ids=[
        "no data",
        "no key",
        "no base64",
        "garbage",
        "another key",
        "data of another kind",
        "state",
        "no domain",
        "selector",
        "no annotations",
        "public",
        "no metadata",
    ],
)
def test_garbage_is_named(edit: Callable[[Json], object], why: str) -> None:
    secret = copy.deepcopy(_stored())
    edit(secret)
    with pytest.raises((KeyDataError, PrivateKeyError), match=why):
        read_secret(secret)


@pytest.mark.parametrize("name", ["", "tls", "default-token-x", "_domainkey.test"])
def test_other_names_mean_nothing(name: str) -> None:
    assert meant_by(name) == ("", "")
