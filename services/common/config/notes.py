"""What a valid configuration does that its writer may not expect, for `gatepost config check`."""

from __future__ import annotations

from collections.abc import Iterator

from services.common.config.delivery import Delivery
from services.common.config.model import Config


def notes(config: Config) -> list[str]:
    """One line for each, beginning with the key that it is about."""
    return [*_smarthosts(config.delivery), *_dane(config)]


def _smarthosts(delivery: Delivery) -> Iterator[str]:
    if delivery.smarthost.host:
        yield (
            f"delivery.smarthost: all mail that is not local goes to {delivery.smarthost.host};"
            " MX records, MTA-STS policies and TLSA records of destinations do not count"
        )
        return
    for domain, smarthost in delivery.sender_smarthosts.items():
        if smarthost.host:
            yield (
                f"delivery.sender_smarthosts.{domain}: its mail goes to {smarthost.host};"
                " MX records, MTA-STS policies and TLSA records of destinations do not count for it"
            )


def _dane(config: Config) -> Iterator[str]:
    # By default it is on, for the day when the resolver validates; that is no surprise.
    asked_for = config.delivery.dane and "dane" in config.delivery.model_fields_set
    if asked_for and not config.dns.validating:
        yield "delivery.dane: TLSA records do not count, because dns.validating is false"
