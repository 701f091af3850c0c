"""The settings of keys: what is taken and what is named as a mistake."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from services.common.config.keys import Keys


def test_the_settings() -> None:
    keys = Keys.model_validate(
        {
            "store": "kubernetes",
            "namespace": "mail-keys",
            "check_interval": "30s",
            "signature_lifetime": "7d",
            "publication_servers": ["192.0.2.53", "[2001:db8::53]:5353"],
        }
    )
    assert keys.check_interval == timedelta(seconds=30)
    assert keys.signature_lifetime == timedelta(days=7)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("store", "vault", "'file' or 'kubernetes'"),
        ("namespace", "Mail", "pattern"),
        ("namespace", "a/b", "pattern"),
        ("check_interval", "0", "at least 1s"),
        ("signature_lifetime", "5m", "at least 1h"),
        ("publication_servers", ["ns1.example.org"], "an IP address"),
    ],
)
def test_mistakes(name: str, value: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Keys.model_validate({name: value})
