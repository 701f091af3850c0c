"""`gatepost.keys.v1.KeyService`: requests are checked here, and answered by who knows.

Letter case and U-labels in domains are accepted and made canonical; selectors are lower-cased.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from gatepost.keys.v1 import keys_pb2, keys_pb2_grpc
from services.common.mail.domain import AddressError, parse_domain
from services.common.rpc.auth import CHANGE, SERVE, VIEW, methods
from services.common.rpc.errors import invalid_argument, unavailable
from services.keys.answer import STATES, advice_message, key_message, publication_message
from services.keys.create import KeyMaker, NewKey
from services.keys.dns_advice import DnsAdviser
from services.keys.key import (
    DEFAULT_RSA_BITS,
    ED25519_BITS,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    Key,
    KeyDataError,
    KeyType,
    parse_request_id,
)
from services.keys.keyring import Keyring
from services.keys.lifecycle import Lifecycle
from services.keys.private_key import PrivateKeyError, from_pem
from services.keys.selector import SelectorError, parse_selector
from services.keys.sign_message import MessageSigner

SERVICE: Final = keys_pb2.DESCRIPTOR.services_by_name["KeyService"]
ACCESS: Final = methods(
    SERVICE.full_name,
    CreateKey=CHANGE,
    ImportKey=CHANGE,
    GetKey=VIEW,
    ListKeys=VIEW,
    ActivateKey=CHANGE,
    RetireKey=CHANGE,
    DeleteKey=CHANGE,
    CheckPublication=VIEW,
    SignMessage=SERVE,
    GetDnsRecords=VIEW,
)

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
MAX_EXPIRY: Final = timedelta(days=36_500)

Context = grpc.aio.ServicerContext[Any, Any]


class KeyService(keys_pb2_grpc.KeyServiceServicer):
    """The servicer; every method raises `RpcFailure`."""

    def __init__(
        self,
        keyring: Keyring,
        maker: KeyMaker,
        lifecycle: Lifecycle,
        signer: MessageSigner,
        adviser: DnsAdviser,
        now: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._maker = maker
        self._lifecycle = lifecycle
        self._signer = signer
        self._adviser = adviser
        self._now = now

    async def CreateKey(
        self, request: keys_pb2.CreateKeyRequest, context: Context
    ) -> keys_pb2.CreateKeyResponse:
        self._check_loaded()
        key_type = _key_type(request.key_type)
        key = await self._maker.create(
            NewKey(
                domain=_domain(request.domain),
                selector=_selector(request.selector) if request.selector else "",
                key_type=key_type,
                bits=_bits(key_type, request.bits),
                expiry=_expiry(request.expiry),
                request_id=_request_id(request.request_id),
            )
        )
        return keys_pb2.CreateKeyResponse(key=self._message(key))

    async def ImportKey(
        self, request: keys_pb2.ImportKeyRequest, context: Context
    ) -> keys_pb2.ImportKeyResponse:
        self._check_loaded()
        domain, selector = _domain(request.domain), _selector(request.selector)
        try:
            private = from_pem(request.private_key_pem)
        except PrivateKeyError as error:
            raise invalid_argument(
                f"private_key_pem: {error}", reason="INVALID_PRIVATE_KEY"
            ) from None
        wanted = NewKey(
            domain=domain,
            selector=selector,
            key_type=private.key_type,
            bits=private.bits,
            expiry=_expiry(request.expiry),
        )
        key = await self._maker.take_over(wanted, private)
        return keys_pb2.ImportKeyResponse(key=self._message(key))

    async def GetKey(
        self, request: keys_pb2.GetKeyRequest, context: Context
    ) -> keys_pb2.GetKeyResponse:
        self._check_loaded()
        entry = self._lifecycle.entry(_domain(request.domain), _selector(request.selector))
        return keys_pb2.GetKeyResponse(key=self._message(entry.key))

    async def ListKeys(
        self, request: keys_pb2.ListKeysRequest, context: Context
    ) -> keys_pb2.ListKeysResponse:
        self._check_loaded()
        domain = _domain(request.domain) if request.domain else ""
        after = _page_token(request.page_token)
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        found = [
            key
            for key in self._keyring.present()
            if (not domain or key.domain == domain)
            and (not request.state or STATES[key.state] == request.state)
            and _place(key) > after
        ]
        page = found[:size]
        more = len(found) > size
        return keys_pb2.ListKeysResponse(
            keys=[self._message(key) for key in page],
            next_page_token=_token_of(page[-1]) if more else "",
        )

    async def ActivateKey(
        self, request: keys_pb2.ActivateKeyRequest, context: Context
    ) -> keys_pb2.ActivateKeyResponse:
        self._check_loaded()
        key = await self._lifecycle.activate(
            _domain(request.domain),
            _selector(request.selector),
            override=request.override_publication,
        )
        return keys_pb2.ActivateKeyResponse(key=self._message(key))

    async def RetireKey(
        self, request: keys_pb2.RetireKeyRequest, context: Context
    ) -> keys_pb2.RetireKeyResponse:
        self._check_loaded()
        key = await self._lifecycle.retire(
            _domain(request.domain),
            _selector(request.selector),
            leave_unsigned=request.leave_unsigned,
        )
        return keys_pb2.RetireKeyResponse(key=self._message(key))

    async def DeleteKey(
        self, request: keys_pb2.DeleteKeyRequest, context: Context
    ) -> keys_pb2.DeleteKeyResponse:
        self._check_loaded()
        await self._lifecycle.delete(_domain(request.domain), _selector(request.selector))
        return keys_pb2.DeleteKeyResponse()

    async def CheckPublication(
        self, request: keys_pb2.CheckPublicationRequest, context: Context
    ) -> keys_pb2.CheckPublicationResponse:
        self._check_loaded()
        key, found = await self._lifecycle.publication(
            _domain(request.domain), _selector(request.selector)
        )
        return publication_message(key, found)

    async def SignMessage(
        self, request: keys_pb2.SignMessageRequest, context: Context
    ) -> keys_pb2.SignMessageResponse:
        fields = await self._signer.sign(request.domain, request.header_block, request.body_hash)
        if not fields:
            return keys_pb2.SignMessageResponse(outcome=keys_pb2.SIGNING_OUTCOME_NO_KEY)
        return keys_pb2.SignMessageResponse(
            outcome=keys_pb2.SIGNING_OUTCOME_SIGNED,
            signatures=[
                keys_pb2.Signature(
                    selector=field.selector, algorithm=field.algorithm, header_field=field.raw
                )
                for field in fields
            ],
        )

    async def GetDnsRecords(
        self, request: keys_pb2.GetDnsRecordsRequest, context: Context
    ) -> keys_pb2.GetDnsRecordsResponse:
        self._check_loaded()
        advice = await self._adviser.advise(_domain(request.domain))
        return keys_pb2.GetDnsRecordsResponse(records=[advice_message(each) for each in advice])

    def _message(self, key: Key) -> keys_pb2.Key:
        return key_message(key, self._now(), fault=self._keyring.fault(key))

    def _check_loaded(self) -> None:
        if not self._keyring.loaded:
            raise unavailable("the keys were not read yet", reason="KEYS_NOT_LOADED")


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except AddressError as error:
        raise invalid_argument(f"domain: {error.reason}", reason="INVALID_DOMAIN") from error


def _selector(text: str) -> str:
    try:
        return parse_selector(text)
    except SelectorError as error:
        raise invalid_argument(f"selector: {error}", reason="INVALID_SELECTOR") from error


def _key_type(text: str) -> KeyType:
    try:
        return KeyType(text.lower() or KeyType.RSA)
    except ValueError as error:
        types = " or ".join(KeyType)
        raise invalid_argument(f"key_type is {types}", reason="INVALID_KEY_TYPE") from error


def _bits(key_type: KeyType, bits: int) -> int:
    if key_type is KeyType.ED25519:
        return ED25519_BITS
    if bits and not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        text = f"bits: an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS}"
        raise invalid_argument(text, reason="INVALID_BITS")
    return bits or DEFAULT_RSA_BITS


def _expiry(duration: Duration) -> timedelta:
    # Not by ToTimedelta, which raises OverflowError for what is too long.
    expiry = timedelta(seconds=min(max(duration.seconds, -1), 10**10))
    if not timedelta(0) <= expiry <= MAX_EXPIRY:
        text = f"expiry is from 0 (never) to {MAX_EXPIRY.days} days"
        raise invalid_argument(text, reason="INVALID_EXPIRY")
    return expiry


def _request_id(text: str) -> str:
    try:
        return parse_request_id(text)
    except KeyDataError as error:
        raise invalid_argument(str(error), reason="INVALID_REQUEST_ID") from error


_Place = tuple[str, str, str]


def _place(key: Key) -> _Place:
    """Where a key stands in the order of `Keyring.present`."""
    return key.domain, key.created.isoformat(), key.selector


def _token_of(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(_place(key)).encode()).decode("ascii")


def _page_token(token: str) -> _Place:
    if not token:
        return "", "", ""
    try:
        domain, created, selector = json.loads(base64.urlsafe_b64decode(token))
        return str(domain), str(created), str(selector)
    except (binascii.Error, ValueError, TypeError) as error:
        text = "page_token is not one that this method gave"
        raise invalid_argument(text, reason="INVALID_PAGE_TOKEN") from error
