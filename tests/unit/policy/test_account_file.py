"""Declared accounts: what a file may say, and what is told of one that is wrong."""

from pathlib import Path

import pytest

from services.policy.account_file import BadAccountFile, parse_accounts

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b/dWRWJTmaaJObG"


def test_a_file() -> None:
    found = parse_accounts(
        f"""
        accounts:
          - address: You@Example.test
            password_hash: {HASH}
          - address: ann@example.test
            password: a long secret
          - address: silent@example.test
        aliases:
          sales@example.test: you@example.test
          all@example.test: [you@example.test, ann@elsewhere.test]
        """.encode()
    )
    assert [(str(a.address), a.password, bool(a.password_hash)) for a in found.accounts] == [
        ("You@example.test", "", True),
        ("ann@example.test", "a long secret", False),
        ("silent@example.test", "", False),
    ]
    assert found.aliases == {
        "sales@example.test": ("you@example.test",),
        "all@example.test": ("you@example.test", "ann@elsewhere.test"),
    }


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs/policy.md").read_text(encoding="utf-8")
    example = text.partition("```yaml accounts\n")[2].partition("```")[0]
    found = parse_accounts(example.encode())
    assert [str(account.address) for account in found.accounts] == [
        "you@example.org",
        "shop@example.com",
    ]
    assert found.aliases == {"sales@example.org": ("you@example.org",)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("# nothing\n", "it is empty"),
        ("- a\n", "valid dictionary"),
        ("accounts: [", "line 1"),
        ("account: []", "account: Extra inputs"),
        ("accounts: [{address: nobody}]", "accounts.0.address: "),
        ("accounts: [{address: a@b.test, pasword: x}]", "accounts.0.pasword: "),
        ("accounts: [{address: a@b.test, password_hash: x}]", "not a hash of argon2id"),
        (f"accounts: [{{address: a@b.test, password: x, password_hash: '{HASH}'}}]", "not both"),
        ("accounts: [{address: a@b.test}, {address: A@B.test}]", "a@b.test stands twice"),
        ("aliases: {a@b.test: []}", "aliases.a@b.test: "),
        ("\xff", "not YAML"),
    ],
)
def test_mistakes(text: str, says: str) -> None:
    with pytest.raises(BadAccountFile, match=says.replace(".", r"\.")):
        parse_accounts(text.encode("latin-1"))


def test_no_mistake_shows_a_password() -> None:
    for text in (
        "accounts: [{address: a@b.test, password: [hunter2]}]",
        "accounts: [{password: hunter2}]",
    ):
        with pytest.raises(BadAccountFile) as caught:
            parse_accounts(text.encode())
        assert "hunter2" not in str(caught.value)
    [account] = parse_accounts(b"accounts: [{address: a@b.test, password: hunter2}]").accounts
    assert "hunter2" not in repr(account)
