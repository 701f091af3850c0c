"""A key as a Kubernetes Secret, and back. Pure: plain JSON values on one side, keys on the other.

What a person selects Secrets by is in labels, everything else in annotations, each field in one
place only, so that an edit by hand means one thing. A domain or selector that is too long for a
label is an annotation. The private part is in the data, in PEM form.

A Secret is called like the record of its key, without the underscore that names of Secrets cannot
have: `rsa20261103.domainkey.example.org`. The register of the domains that sign is one more Secret,
with a line for each domain in its data.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from services.keys.duty import Duty, format_duty, read_register
from services.keys.key import Key, KeyDataError, from_fields, to_fields
from services.keys.private_key import PrivateKey
from services.keys.store import Entry, private_part

PREFIX: Final = "gatepost/"
PRIVATE_FIELD: Final = "private.pem"
"""The key of the PEM block within the Secret's data."""

REGISTER: Final = "gatepost-dkim-domains"
"""The name of the Secret with the register; no key's Secret can be called like this."""

OURS: Final = {
    "app.kubernetes.io/part-of": "gatepost",
    "app.kubernetes.io/component": "dkim-key",
    "app.kubernetes.io/managed-by": "gatepost",
}
_REGISTER_LABELS: Final = {**OURS, "app.kubernetes.io/component": "dkim-domains"}
SELECTION: Final = (
    "app.kubernetes.io/part-of=gatepost,app.kubernetes.io/component in (dkim-key,dkim-domains)"
)
"""Selects our Secrets among those of a namespace."""

_NAME_SEPARATOR: Final = ".domainkey."
_LABELS: Final = ("domain", "selector", "key-type", "bits", "state")
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_SECRET_NAME: Final = re.compile(
    r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII
)
_MAX_NAME_OCTETS: Final = 253

Json = dict[str, Any]


def secret_name(key: Key) -> str:
    """What the Secret of a key is called."""
    return f"{key.selector}{_NAME_SEPARATOR}{key.domain}"


def meant_by(name: str) -> tuple[str, str]:
    """The domain and the selector that a Secret's name stands for; blank if it is none of ours."""
    selector, _, domain = name.partition(_NAME_SEPARATOR)
    return (domain, selector) if domain else ("", "")


def new_secret(key: Key, private: PrivateKey) -> Json:
    """The whole Secret, to be created."""
    labels, annotations = _metadata(key)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": secret_name(key),
            "labels": {**OURS, **labels},
            "annotations": annotations,
        },
        "data": {PRIVATE_FIELD: base64.b64encode(private.pem()).decode("ascii")},
    }


def change(before: Key, after: Key, *, version: str) -> Json:
    """The merge patch (RFC 7396) that makes `before` into `after`, if nobody was quicker."""
    old_labels, old_annotations = _metadata(before)
    labels, annotations = _metadata(after)
    return {
        "metadata": {
            # The API server refuses the patch if this is no longer the current one.
            "resourceVersion": version,
            "labels": {**dict.fromkeys(old_labels), **labels},
            "annotations": {**dict.fromkeys(old_annotations), **annotations},
        }
    }


def replacement(whole: Json) -> Json:
    """The merge patch that puts our part of a Secret right, whatever it is now."""
    return {
        "metadata": {part: whole["metadata"][part] for part in ("labels", "annotations")},
        "data": whole["data"],
    }


def erasure(before: Key, after: Key, *, version: str) -> Json:
    """As `change`, and the private part is removed."""
    return {**change(before, after, version=version), "data": {PRIVATE_FIELD: None}}


def read_secret(secret: Mapping[str, Any]) -> Entry:
    """The key in a Secret. Raises `KeyDataError`, `PrivateKeyError`."""
    metadata = _mapping(secret, "metadata")
    name, version = str(metadata.get("name", "")), str(metadata.get("resourceVersion", ""))
    key = from_fields(
        {**_own(_mapping(metadata, "annotations")), **_own(_mapping(metadata, "labels"))}
    )
    if secret_name(key) != name:
        raise KeyDataError("it is the key of another domain or selector")
    pem = _decoded(_mapping(secret, "data"), PRIVATE_FIELD)
    return Entry(name, key, private_part(key, pem), version)


def register_patch(domain: str, duty: Duty) -> Json:
    """The merge patch that writes a domain's line into the register, and touches no other's."""
    line = base64.b64encode(format_duty(duty).encode("ascii")).decode("ascii")
    return {"metadata": {"labels": _REGISTER_LABELS}, "data": {domain: line}}


def new_register(domain: str, duty: Duty) -> Json:
    """The whole register with one line, to be created."""
    patch = register_patch(domain, duty)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": REGISTER, **patch["metadata"]},
        "data": patch["data"],
    }


def read_duties(secret: Mapping[str, Any]) -> dict[str, Duty]:
    """What the Secret with the register says. Raises `KeyDataError`."""
    data = _mapping(secret, "data")
    lines = {domain: _decoded(data, domain).decode("utf-8", "replace") for domain in data}
    return read_register(lines)


def is_secret_name(text: str) -> bool:
    """Whether a Secret can have this name; others must not get into the path of a request."""
    return len(text) <= _MAX_NAME_OCTETS and _SECRET_NAME.fullmatch(text) is not None


def foreign_content(secret: Mapping[str, Any], field: str) -> bytes:
    """What stands in a field of a Secret that is not ours; blank means its only one.

    Raises `KeyDataError`.
    """
    data = _mapping(secret, "data")
    if not field and len(data) != 1:
        raise KeyDataError(f"the Secret has {len(data)} fields; name one")
    if field and field not in data:
        raise KeyDataError("the Secret has no such field")
    return _decoded(data, field or next(iter(data)))


def _decoded(data: Mapping[str, Any], field: str) -> bytes:
    try:
        return base64.b64decode(str(data.get(field, "")), validate=True)
    except (binascii.Error, ValueError):
        # Without the cause, which may quote it.
        raise KeyDataError(f"{field} is not base64") from None


def _metadata(key: Key) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for field, value in to_fields(key).items():
        fits = field in _LABELS and _LABEL_VALUE.fullmatch(value)
        (labels if fits else annotations)[PREFIX + field] = value
    return labels, annotations


def _own(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX): str(value)
        for name, value in found.items()
        if name.startswith(PREFIX)
    }


def _mapping(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of an object that is left out when it is empty."""
    value = of.get(name) or {}
    if not isinstance(value, Mapping):
        raise KeyDataError(f"{name} is not an object")
    return value
