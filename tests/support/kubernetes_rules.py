"""What the API server of Kubernetes refuses of a Secret, after its ValidateSecret and
ValidateObjectMeta: names, labels, annotations, data, and what may not be changed."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

_DNS_1123 = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_DATA_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
_MAX_ANNOTATIONS = 256 * 1024
_MAX_DATA = 1024 * 1024

Json = dict[str, Any]


class Refused(Exception):
    """The request is answered with a Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


def validate(secret: Json, before: Json | None = None) -> None:
    """The rules of ValidateSecret and ValidateObjectMeta of the API server."""
    metadata = secret.get("metadata", {})
    problems = []
    if not _is_subdomain(metadata.get("name", "")):
        problems.append("metadata.name: not a lowercase RFC 1123 subdomain")
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    for name, value in labels.items():
        if not _is_qualified(name) or not _LABEL_VALUE.fullmatch(value):
            problems.append(f"metadata.labels: {name}: {value!r}")
    problems += [f"metadata.annotations: {n}" for n in annotations if not _is_qualified(n)]
    strings = [*labels.values(), *annotations.values(), *(secret.get("data") or {}).values()]
    if not all(isinstance(value, str) for value in strings):
        raise Refused(400, "BadRequest", "json: cannot unmarshal into Go struct field")
    if sum(len(name) + len(value) for name, value in annotations.items()) > _MAX_ANNOTATIONS:
        problems.append("metadata.annotations: too long")
    if before is not None and before.get("type") != secret.get("type"):
        problems.append("type: field is immutable")
    if before is not None and before.get("immutable") and before.get("data") != secret.get("data"):
        problems.append("data: field is immutable when `immutable` is set")
    problems += _data_problems(secret.get("data") or {})
    if problems:
        raise Refused(422, "Invalid", "; ".join(problems))


def _is_subdomain(name: str) -> bool:
    return len(name) <= 253 and _DNS_1123.fullmatch(name) is not None


def _is_qualified(name: str) -> bool:
    """`name` or `prefix/name`, as labels and annotations are called."""
    prefix, slash, rest = name.rpartition("/")
    return (not slash or _is_subdomain(prefix)) and _LABEL_NAME.fullmatch(rest) is not None


def _data_problems(data: Mapping[str, str]) -> list[str]:
    problems = [f"data[{name}]: not a key" for name in data if not _DATA_KEY.fullmatch(name)]
    try:
        size = sum(len(base64.b64decode(value, validate=True)) for value in data.values())
    except (binascii.Error, ValueError):
        raise Refused(400, "BadRequest", "illegal base64 data") from None
    return problems + (["data: too long"] if size > _MAX_DATA else [])
