"""Selectors: what is one, and what is proposed."""

from __future__ import annotations

from datetime import date

import pytest

from services.keys.selector import SelectorError, parse_selector, proposed

_DAY = date(2026, 11, 3)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("s1", "s1"),
        ("S2026", "s2026"),
        ("2026", "2026"),
        ("a-b", "a-b"),
        ("mail.2026", "mail.2026"),
        ("x" * 63, "x" * 63),
    ],
)
def test_selectors(text: str, selector: str) -> None:
    assert parse_selector(text) == selector


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "s1.",
        ".s1",
        "a..b",
        "-a",
        "a-",
        "a b",
        "a_b",
        "s1\n",
        "s1;",
        "s1/../x",
        "*",
        "sé",
        "x" * 64,
        "s\u0661",  # an Arabic digit
        "\u212a",  # the Kelvin sign lower-cases to k
    ],
)
def test_no_selectors(text: str) -> None:
    with pytest.raises(SelectorError, match="letters, digits and hyphens"):
        parse_selector(text)


@pytest.mark.parametrize(
    ("key_type", "used", "expected"),
    [
        ("rsa", [], "rsa20261103"),
        ("ed25519", [], "ed20261103"),
        ("rsa", ["ed20261103"], "rsa20261103"),
        ("rsa", ["rsa20261103"], "rsa20261103-2"),
        ("rsa", ["rsa20261103", "rsa20261103-2", "rsa20261103-4"], "rsa20261103-3"),
    ],
)
def test_a_proposal_has_type_and_date_and_was_never_used(
    key_type: str, used: list[str], expected: str
) -> None:
    assert proposed(key_type, _DAY, used) == expected
    assert parse_selector(expected) == expected


def test_proposals_end() -> None:
    class Everything:
        def __contains__(self, _: object) -> bool:
            return True

    with pytest.raises(SelectorError, match="name one"):
        proposed("rsa", _DAY, Everything())
