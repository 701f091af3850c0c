"""Keys and findings as the messages of the keys API. What is private has no way in here."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gatepost.keys.v1 import keys_pb2
from services.keys import key_record
from services.keys.dns_advice import Advice
from services.keys.domain_status import DomainSigning, DomainStatus
from services.keys.key import Key
from services.keys.notes import notes
from services.keys.publication import Publication
from services.keys.state import KeyState

STATES: Final = {
    KeyState.PENDING: keys_pb2.KEY_STATE_PENDING,
    KeyState.PUBLISHED: keys_pb2.KEY_STATE_PUBLISHED,
    KeyState.ACTIVE: keys_pb2.KEY_STATE_ACTIVE,
    KeyState.RETIRING: keys_pb2.KEY_STATE_RETIRING,
    KeyState.RETIRED: keys_pb2.KEY_STATE_RETIRED,
}

_SIGNINGS: Final = {
    DomainSigning.SIGNED: keys_pb2.DOMAIN_SIGNING_SIGNED,
    DomainSigning.UNSIGNED: keys_pb2.DOMAIN_SIGNING_UNSIGNED,
    DomainSigning.WAITING: keys_pb2.DOMAIN_SIGNING_WAITING,
}


def key_message(key: Key, now: datetime, *, fault: str = "") -> keys_pb2.Key:
    """A key that is not deleted."""
    return keys_pb2.Key(
        domain=key.domain,
        selector=key.selector,
        key_type=key.key_type,
        bits=key.bits,
        state=STATES[key.state],
        create_time=_timestamp(key.created),
        publish_time=_timestamp(key.published),
        activate_time=_timestamp(key.activated),
        retire_time=_timestamp(key.retired),
        expire_time=_timestamp(key.expires),
        dns_record=record_message(key),
        notes=notes(key, now, fault=fault),
    )


def lost_key_message(domain: str, selector: str) -> keys_pb2.Key:
    """A key that was given up, of which nothing but its name is left."""
    return keys_pb2.Key(
        domain=domain,
        selector=selector,
        state=keys_pb2.KEY_STATE_RETIRED,
        notes=["the key is lost and was given up; its record may be removed after some days"],
    )


def domain_message(status: DomainStatus) -> keys_pb2.DomainStatus:
    """How the mail of a domain is signed."""
    return keys_pb2.DomainStatus(
        domain=status.domain,
        local=status.local,
        signing=_SIGNINGS[status.signing],
        selectors=status.selectors,
        problems=status.problems,
    )


def record_message(key: Key) -> keys_pb2.DnsRecord:
    """The record that the key's owner publishes."""
    value = key_record.value(key)
    return keys_pb2.DnsRecord(
        name=key.record_name,
        type="TXT",
        value=value,
        zone_file=key_record.zone_file(key.record_name, value),
        purpose=f"DKIM: the public key that verifies signatures with the selector {key.selector}",
    )


def publication_message(key: Key, found: Publication) -> keys_pb2.CheckPublicationResponse:
    """What was found where."""
    servers = [
        keys_pb2.ServerAnswer(server=each.server, published=each.published, answer=each.answer)
        for each in found.servers
    ]
    return keys_pb2.CheckPublicationResponse(
        published=found.visible,
        expected=record_message(key),
        servers=servers,
        problem=found.problem,
    )


def advice_message(advice: Advice) -> keys_pb2.ProposedRecord:
    """What should be there beside what is."""
    proposal = advice.proposal
    return keys_pb2.ProposedRecord(
        record=keys_pb2.DnsRecord(
            name=proposal.name,
            type=proposal.rdtype,
            value=proposal.value,
            zone_file=proposal.zone_file,
            purpose=proposal.purpose,
        ),
        current_values=advice.current,
        satisfied=advice.satisfied,
        lookup_error=advice.error,
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
