"""Accounts and aliases that are declared in a file (a Secret), `recipients.accounts_file`.

    accounts:
      - address: you@example.org
        password_hash: "$argon2id$v=19$…"     or `password`, or neither: nobody can log in
    aliases:
      sales@example.org: [you@example.org]

An account whose domain is not local can log in and submit; it has no mailbox, and mail for its
address goes where that of any other foreign address goes.
The whole file is read and checked; one that is wrong changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from services.common.config.recipients import Address, AliasTargets
from services.common.mail.address import Mailbox, parse_mailbox

MAX_FILE_OCTETS = 32 * 2**20

_HASH = re.compile(r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")


class BadAccountFile(ValueError):
    """The file cannot be used; the message says where and why, without passwords."""


@dataclass(frozen=True, slots=True)
class DeclaredAccount:
    """An account as it shall be."""

    address: Mailbox
    password: str = field(repr=False, default="")
    password_hash: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class AccountFile:
    """What a file declares."""

    accounts: tuple[DeclaredAccount, ...] = ()
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Strict(BaseModel):
    # The input would show passwords in the text of an error.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _Account(_Strict):
    address: Address
    password: str = ""
    password_hash: str = ""

    @field_validator("password_hash")
    @classmethod
    def _is_argon2id(cls, value: str) -> str:
        if value and not _HASH.fullmatch(value):
            raise ValueError("not a hash of argon2id, which begins with $argon2id$")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> _Account:
        if self.password and self.password_hash:
            raise ValueError("either password or password_hash, not both")
        return self


class _File(_Strict):
    accounts: Annotated[tuple[_Account, ...], Field(max_length=100_000)] = ()
    aliases: dict[Address, AliasTargets] = {}


def parse_accounts(octets: bytes) -> AccountFile:
    """What these octets declare. Raises `BadAccountFile`."""
    if len(octets) > MAX_FILE_OCTETS:
        raise BadAccountFile(f"larger than {MAX_FILE_OCTETS} octets")
    try:
        values = yaml.safe_load(octets)
        if values is None:
            # Taken at its word, a Secret that was emptied by mistake would remove every account.
            raise BadAccountFile("it is empty; to declare no accounts write `accounts: []`")
        found = _File.model_validate(values)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise BadAccountFile(f"{where}{error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise BadAccountFile("not YAML") from None
    except ValidationError as error:
        raise BadAccountFile("; ".join(_problems(error))) from None
    accounts = tuple(
        DeclaredAccount(
            parse_mailbox(each.address, smtputf8=True), each.password, each.password_hash
        )
        for each in found.accounts
    )
    keys = [account.address.key for account in accounts]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadAccountFile(f"accounts: {twice} stands twice")
    return AccountFile(accounts, dict(found.aliases))


def _problems(error: ValidationError) -> list[str]:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in problems
    ]
