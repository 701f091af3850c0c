"""DirectoryService: the accounts as operators and the ingress see them.

Guarantees: no answer, log line or error holds a password or a hash; a wrong pair is an answer and
takes as long as a right one.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from prometheus_client import Counter

from gatepost.policy.v1 import directory_pb2 as pb
from gatepost.policy.v1 import directory_pb2_grpc
from services.common.log import INFO, event
from services.common.mail.address import AddressError, Mailbox, parse_domain, parse_mailbox
from services.common.mail.printable import one_line
from services.common.rpc.errors import (
    aborted,
    already_exists,
    failed_precondition,
    not_found,
    resource_exhausted,
    unavailable,
)
from services.common.store import Conflict, StoreError
from services.policy.account import AccountRecord, BadRecord, Origin, account_key
from services.policy.directory import AccountDirectory, AccountExists, NoSuchAccount, Stored
from services.policy.passwords import BadPassword, Busy, Passwords
from services.policy.requests import bad
from services.policy.rules import RulesSource

DEFAULT_PAGE = 100
MAX_PAGE = 1000

LOGINS = Counter(
    "gatepost_policy_logins_total",
    "Passwords that were checked.",
    ["result"],  # right, wrong
)

_ORIGINS = {
    Origin.CREATED: pb.ACCOUNT_ORIGIN_CREATED,
    Origin.DECLARED: pb.ACCOUNT_ORIGIN_DECLARED,
    Origin.AUTO_CREATED: pb.ACCOUNT_ORIGIN_AUTO_CREATED,
}

_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]


class DirectoryService(directory_pb2_grpc.DirectoryServiceServicer):
    """Keeps the accounts."""

    def __init__(
        self, rules: RulesSource, directory: AccountDirectory, passwords: Passwords
    ) -> None:
        self._rules = rules
        self._directory = directory
        self._passwords = passwords

    async def Authenticate(
        self, request: pb.AuthenticateRequest, context: _Context
    ) -> pb.AuthenticateResponse:
        """Check a user name and a password."""
        async with _failures():
            stored = await self._account(request.username)
            known = stored.record.password_hash if stored else ""
            right = await self._passwords.verify(known, request.password)
        LOGINS.labels("right" if right else "wrong").inc()
        if stored is None or not right:
            event(
                _log,
                INFO,
                "login refused",
                username=one_line(request.username, limit=256),
                client=one_line(request.client_address, limit=64),
            )
            return pb.AuthenticateResponse()
        return pb.AuthenticateResponse(authenticated=True, account=self._message(stored.record))

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: _Context
    ) -> pb.CreateAccountResponse:
        """Make an account."""
        address = _address(request.address)
        if not request.password and not self._receives_mail(address):
            text = f"missing; {address.domain} is not a local domain (domains.local), so that an"
            raise bad("password", f"{text} account without a password would be for nothing")
        async with _failures():
            hashed = await self._passwords.hash(request.password)
            record = await self._directory.create(address, hashed, origin=Origin.CREATED)
        return pb.CreateAccountResponse(account=self._message(record))

    async def SetPassword(
        self, request: pb.SetPasswordRequest, context: _Context
    ) -> pb.SetPasswordResponse:
        """Replace a password."""
        address = _address(request.address)
        async with _failures():
            await self._check_undeclared(address)
            hashed = await self._passwords.hash(request.password)
            record = await self._directory.set_password(address, hashed)
        return pb.SetPasswordResponse(account=self._message(record))

    async def GetAccount(
        self, request: pb.GetAccountRequest, context: _Context
    ) -> pb.GetAccountResponse:
        """Tell about an account."""
        address = _address(request.address)
        async with _failures():
            stored = await self._directory.get(address)
            if stored is None:
                raise NoSuchAccount(str(address))
        return pb.GetAccountResponse(account=self._message(stored.record))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: _Context
    ) -> pb.ListAccountsResponse:
        """List accounts in the order of their addresses."""
        domain = _domain(request.domain)
        after = _read_token(request.page_token)
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        async with _failures():
            addresses = await self._directory.addresses(domain)
            left = [address for address in addresses if address.key > after]
            page = left[:size]
            records = await self._directory.get_all(page)
        token = _token(page[-1].key) if len(left) > size else ""
        return pb.ListAccountsResponse(accounts=map(self._message, records), next_page_token=token)

    async def DeleteAccount(
        self, request: pb.DeleteAccountRequest, context: _Context
    ) -> pb.DeleteAccountResponse:
        """Remove an account."""
        address = _address(request.address)
        async with _failures():
            await self._check_undeclared(address)
            await self._directory.delete(address)
        return pb.DeleteAccountResponse()

    async def _account(self, username: str) -> Stored | None:
        """The account of a user name, which may be anything."""
        try:
            address = parse_mailbox(username[:1000], smtputf8=True)
            account_key(address)
        except AddressError:
            return None
        return await self._directory.get(address)

    async def _check_undeclared(self, address: Mailbox) -> None:
        """What a file declares is changed in the file."""
        stored = await self._directory.get(address)
        if stored is not None and stored.record.origin is Origin.DECLARED:
            text = f"{address} is declared in recipients.accounts_file; change it there"
            raise failed_precondition(text, reason="ACCOUNT_DECLARED")

    def _receives_mail(self, address: Mailbox) -> bool:
        return address.domain in self._rules.current.config.domains.local

    def _message(self, record: AccountRecord) -> pb.Account:
        message = pb.Account(
            address=record.address,
            has_password=bool(record.password_hash),
            origin=_ORIGINS[record.origin],
            receives_mail=self._receives_mail(parse_mailbox(record.address, smtputf8=True)),
        )
        message.create_time.FromDatetime(record.created)
        message.update_time.FromDatetime(record.updated)
        return message


@asynccontextmanager
async def _failures() -> AsyncIterator[None]:
    """Turns what the parts raise into statuses of the call."""
    try:
        yield
    except AccountExists as error:
        raise already_exists(f"{error} has an account", reason="ACCOUNT_EXISTS") from error
    except NoSuchAccount as error:
        raise not_found(f"{error} has no account", reason="ACCOUNT_UNKNOWN") from error
    except BadPassword as error:
        raise bad("password", str(error)) from error
    except Busy as error:
        text = "too many passwords are being checked; try again"
        raise resource_exhausted(text, reason="PASSWORDS_BUSY") from error
    except BadRecord as error:
        text = "the stored account cannot be read by this version"
        raise failed_precondition(text, reason="ACCOUNT_UNREADABLE") from error
    except Conflict as error:
        text = "the account was changed at the same time; look and try again"
        raise aborted(text, reason="ACCOUNT_CHANGED") from error
    except StoreError as error:
        raise unavailable("accounts cannot be reached just now", reason="NATS_AWAY") from error


def _address(text: str) -> Mailbox:
    if not text:
        raise bad("address", "missing; give an address such as you@example.org")
    try:
        address = parse_mailbox(text, smtputf8=True)
        account_key(address)
    except AddressError as error:
        raise bad("address", f"{error.reason}; give an address such as you@example.org") from None
    return address


def _domain(text: str) -> str:
    try:
        return parse_domain(text) if text else ""
    except AddressError as error:
        raise bad("domain", error.reason) from None


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise bad("page_token", "not a token that an earlier page gave") from None
