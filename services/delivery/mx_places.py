"""The mail exchanges of a domain, each with the encryption that is demanded of it.

RFC 7672 (DANE), RFC 8461 §2 (DANE comes first), §5 (what senders do with an MTA-STS policy).

    usable TLSA records            → TLS with one of those certificates
    TLSA records of other kinds    → TLS, whoever it is
    TLSA records in doubt          → not this host, for now
    MTA-STS in mode enforce        → TLS with a certificate for the name, and the name in the policy
    MTA-STS in mode testing        → the same at first, then as below, and counted
    delivery.require_tls           → TLS, whoever it is
    nothing                        → TLS if it can be had

Guarantees: what a policy demands is never given up, only put off until the next attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses

from services.common.config.source import ConfigSource
from services.common.dns import Resolver, TlsaRecord
from services.common.mail.reply import make_reply
from services.common.store import StoreError
from services.delivery.exchanges import Host, hosts_of_domain
from services.delivery.place import Place, ways_down
from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.smtp.session import Peer, Tls
from services.delivery.tls.dane import Dane, TlsaUnknown, dane_of
from services.delivery.tls.report import PolicyKind, Terms, TlsResult
from services.delivery.tls.sts import NO_POLICY, MtaSts, StsFinding
from services.delivery.tls.sts_policy import Mode, StsPolicy

SMTP_PORT = 25


class PoliciesUnreadable(Exception):
    """Nobody knows which MTA-STS policy a domain has: to send without what it demands is what it is
    there to prevent."""


class MxPlaces:
    """Finds the exchanges of domains and what is demanded of them."""

    def __init__(
        self,
        source: ConfigSource,
        resolver: Resolver,
        sts: MtaSts,
        *,
        validating: bool,
        port: int = SMTP_PORT,
    ) -> None:
        """`validating`: the resolver's word that an answer is authentic can be relied on."""
        self._source = source
        self._resolver = resolver
        self._sts = sts
        self._validating = validating
        self._port = port

    async def of(self, domain: str) -> list[Place]:
        """The places to try, in their order. Raises `NoExchange` and `PoliciesUnreadable`."""
        config = self._source.current
        hosts = await hosts_of_domain(
            self._resolver,
            domain,
            own_name=config.smtp.hostname,
            allowed=config.delivery.allowed_networks,
            family=config.delivery.address_family,
        )
        if domain.startswith("["):
            return [self._free(host) for host in hosts]
        daned, finding = await asyncio.gather(self._dane(hosts, domain), self._policy(domain))
        places = []
        for host in hosts:
            dane = daned[host.name]
            place = self._place(host, domain, dane, finding)
            terms = _terms(place.policy, host, domain, dane, finding.policy)
            places.append(dataclasses.replace(place, terms=terms))
        return places

    async def _policy(self, domain: str) -> StsFinding:
        if not self._source.current.delivery.mta_sts:
            return NO_POLICY
        try:
            return await self._sts.of(domain)
        except StoreError as error:
            raise PoliciesUnreadable(str(error)) from error

    async def _dane(self, hosts: list[Host], domain: str) -> dict[str, Dane | TlsaUnknown | None]:
        """By the hosts' names; hosts with several addresses are asked for once."""
        by_name = {host.name: host for host in hosts}
        if not (self._validating and self._source.current.delivery.dane):
            return dict.fromkeys(by_name)

        async def one(host: Host) -> Dane | TlsaUnknown | None:
            try:
                return await dane_of(self._resolver, host, domain, port=self._port)
            except TlsaUnknown as error:
                return error

        found = await asyncio.gather(*map(one, by_name.values()))
        return dict(zip(by_name, found, strict=True))

    def _place(
        self, host: Host, domain: str, dane: Dane | TlsaUnknown | None, finding: StsFinding
    ) -> Place:
        if isinstance(dane, TlsaUnknown):
            text = f"DANE: the TLSA records of {host.name} cannot be looked up just now: {dane}"
            error = SessionFailed(
                Failure.TLS,
                text,
                reply=make_reply(451, "4.4.3", text),
                tls_result=TlsResult.DNSSEC_INVALID,
            )
            return Place((self._peer(host, Tls.DANE),), PolicyKind.TLSA, refusal=error)
        if dane is not None:
            return self._with_dane(host, dane)
        if finding.policy is not None:
            return self._with_sts(host, domain, finding.policy)
        if finding.failure is not None:
            free = self._free(host)
            return dataclasses.replace(
                free, policy=PolicyKind.STS, lacking=finding.failure, detail=finding.detail
            )
        return self._free(host)

    def _with_dane(self, host: Host, dane: Dane) -> Place:
        if dane.records:
            peer = dataclasses.replace(self._peer(host, Tls.DANE), dane=dane)
            return Place((peer,), PolicyKind.TLSA, demanded_by="DANE")
        return Place(
            (self._peer(host, Tls.REQUIRED),),
            PolicyKind.TLSA,
            demanded_by="DANE",
            lacking=TlsResult.TLSA_INVALID,
            detail="none of the TLSA records can be used",
        )

    def _with_sts(self, host: Host, domain: str, policy: StsPolicy) -> Place:
        strict = dataclasses.replace(
            self._peer(host, Tls.AUTHENTICATED),
            extra_ca_file=self._source.current.delivery.extra_ca_file,
        )
        named = policy.permits(host.name)
        outside = f"the MTA-STS policy of {domain} does not name {host.name}"
        place = Place((strict,), PolicyKind.STS, policy.mode, f"MTA-STS of {domain}")
        if policy.mode is Mode.ENFORCE:
            return (
                place
                if named
                else dataclasses.replace(place, refusal=SessionFailed(Failure.TLS, outside))
            )
        free = self._free(host).ways
        if named:
            return dataclasses.replace(place, ways=(strict, *free), demanded_by="")
        return dataclasses.replace(
            place,
            ways=free,
            demanded_by="",
            lacking=TlsResult.VALIDATION_FAILURE,
            detail=outside,
        )

    def _free(self, host: Host) -> Place:
        """With what the operator demands, and no more."""
        required = self._source.current.delivery.require_tls
        peer = self._peer(host, Tls.REQUIRED if required else Tls.OPPORTUNISTIC)
        return Place(ways_down(peer), PolicyKind.NONE)

    def _peer(self, host: Host, tls: Tls) -> Peer:
        return Peer(name=host.name, address=host.address, port=self._port, tls=tls)


def _terms(
    kind: PolicyKind | None,
    host: Host,
    domain: str,
    dane: Dane | TlsaUnknown | None,
    policy: StsPolicy | None,
) -> Terms:
    match kind:
        case PolicyKind.TLSA if isinstance(dane, Dane):
            return Terms(domain, dane.base, tuple(map(_line, dane.records)))
        case PolicyKind.TLSA:
            return Terms(domain, host.name)
        case PolicyKind.STS if policy is not None:
            return Terms(domain, domain, policy.lines, policy.patterns)
        case _:
            return Terms(domain, domain)


def _line(record: TlsaRecord) -> str:
    numbers = f"{record.usage} {record.selector} {record.matching_type}"
    return f"{numbers} {record.association.hex()}"
