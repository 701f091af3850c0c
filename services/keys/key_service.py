"""`gatepost.keys.v1.KeyService`: `request` checks the fields, others know the answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import grpc.aio

from gatepost.keys.v1 import keys_pb2, keys_pb2_grpc
from services.common.config.model import Config
from services.common.rpc.auth import CHANGE, SERVE, VIEW, methods
from services.common.rpc.errors import unavailable
from services.keys.answer import (
    STATES,
    advice_message,
    domain_message,
    key_message,
    lost_key_message,
    publication_message,
)
from services.keys.create import KeyMaker, NewKey
from services.keys.dns_advice import DnsAdviser
from services.keys.domain_status import domain_statuses
from services.keys.key import Key
from services.keys.keyring import Keyring
from services.keys.lifecycle import Lifecycle
from services.keys.request import (
    bits_of,
    domain_after,
    domain_of,
    domain_token,
    expiry_of,
    key_type_of,
    page_token_after,
    place_after,
    place_of,
    request_id_of,
    selector_of,
)
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
    ListDomains=VIEW,
)

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000

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
        *,
        config: Callable[[], Config],
        now: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._maker = maker
        self._lifecycle = lifecycle
        self._signer = signer
        self._adviser = adviser
        self._config = config
        self._now = now

    async def CreateKey(
        self, request: keys_pb2.CreateKeyRequest, context: Context
    ) -> keys_pb2.CreateKeyResponse:
        self._check_loaded()
        key_type = key_type_of(request.key_type)
        key = await self._maker.create(
            NewKey(
                domain=domain_of(request.domain),
                selector=selector_of(request.selector) if request.selector else "",
                key_type=key_type,
                bits=bits_of(key_type, request.bits),
                expiry=expiry_of(request.expiry),
                request_id=request_id_of(request.request_id),
            )
        )
        return keys_pb2.CreateKeyResponse(key=self._message(key))

    async def ImportKey(
        self, request: keys_pb2.ImportKeyRequest, context: Context
    ) -> keys_pb2.ImportKeyResponse:
        self._check_loaded()
        domain, selector = domain_of(request.domain), selector_of(request.selector)
        private = await self._maker.read_foreign(
            request.private_key_pem, request.secret_name, request.secret_field
        )
        wanted = NewKey(
            domain=domain,
            selector=selector,
            key_type=private.key_type,
            bits=private.bits,
            expiry=expiry_of(request.expiry),
        )
        key = await self._maker.take_over(wanted, private)
        return keys_pb2.ImportKeyResponse(key=self._message(key))

    async def GetKey(
        self, request: keys_pb2.GetKeyRequest, context: Context
    ) -> keys_pb2.GetKeyResponse:
        self._check_loaded()
        entry = self._lifecycle.entry(domain_of(request.domain), selector_of(request.selector))
        return keys_pb2.GetKeyResponse(key=self._message(entry.key))

    async def ListKeys(
        self, request: keys_pb2.ListKeysRequest, context: Context
    ) -> keys_pb2.ListKeysResponse:
        self._check_loaded()
        domain = domain_of(request.domain) if request.domain else ""
        after = place_after(request.page_token)
        size = _page_size(request.page_size)
        found = [
            key
            for key in self._keyring.present()
            if (not domain or key.domain == domain)
            and (not request.state or STATES[key.state] == request.state)
            and place_of(key) > after
        ]
        page = found[:size]
        more = len(found) > size
        return keys_pb2.ListKeysResponse(
            keys=[self._message(key) for key in page],
            next_page_token=page_token_after(page[-1]) if more else "",
        )

    async def ActivateKey(
        self, request: keys_pb2.ActivateKeyRequest, context: Context
    ) -> keys_pb2.ActivateKeyResponse:
        self._check_loaded()
        key = await self._lifecycle.activate(
            domain_of(request.domain),
            selector_of(request.selector),
            override=request.override_publication,
        )
        return keys_pb2.ActivateKeyResponse(key=self._message(key))

    async def RetireKey(
        self, request: keys_pb2.RetireKeyRequest, context: Context
    ) -> keys_pb2.RetireKeyResponse:
        self._check_loaded()
        domain, selector = domain_of(request.domain), selector_of(request.selector)
        key = await self._lifecycle.retire(domain, selector, leave_unsigned=request.leave_unsigned)
        message = self._message(key) if key is not None else lost_key_message(domain, selector)
        return keys_pb2.RetireKeyResponse(key=message)

    async def DeleteKey(
        self, request: keys_pb2.DeleteKeyRequest, context: Context
    ) -> keys_pb2.DeleteKeyResponse:
        self._check_loaded()
        await self._lifecycle.delete(domain_of(request.domain), selector_of(request.selector))
        return keys_pb2.DeleteKeyResponse()

    async def CheckPublication(
        self, request: keys_pb2.CheckPublicationRequest, context: Context
    ) -> keys_pb2.CheckPublicationResponse:
        self._check_loaded()
        key, found = await self._lifecycle.publication(
            domain_of(request.domain), selector_of(request.selector)
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
        domain = domain_of(request.domain)
        advice = await self._adviser.advise(domain)
        return keys_pb2.GetDnsRecordsResponse(
            records=[advice_message(each) for each in advice], notes=self._adviser.notes(domain)
        )

    async def ListDomains(
        self, request: keys_pb2.ListDomainsRequest, context: Context
    ) -> keys_pb2.ListDomainsResponse:
        self._check_loaded()
        after = domain_after(request.page_token)
        size = _page_size(request.page_size)
        config = self._config()
        found = [
            status
            for status in domain_statuses(self._keyring, frozenset(config.domains.local))
            if status.domain > after
        ]
        page = found[:size]
        return keys_pb2.ListDomainsResponse(
            domains=[domain_message(status) for status in page],
            next_page_token=domain_token(page[-1].domain) if len(found) > size else "",
            signing_enabled=config.delivery.dkim.enabled,
        )

    def _message(self, key: Key) -> keys_pb2.Key:
        return key_message(key, self._now(), fault=self._keyring.fault(key))

    def _check_loaded(self) -> None:
        if not self._keyring.loaded:
            raise unavailable("the keys were not read yet", reason="KEYS_NOT_LOADED")


def _page_size(asked: int) -> int:
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
