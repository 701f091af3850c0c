"""What a valid configuration does that its writer may not expect, for `gatepost config check`."""

from __future__ import annotations

from collections.abc import Iterator

from services.common.config.model import Config


def notes(config: Config) -> list[str]:
    """One line for each, beginning with the key that it is about."""
    return [*_smarthosts(config), *_dane(config)]


def _smarthosts(config: Config) -> Iterator[str]:
    delivery = config.delivery
    if delivery.smarthost.host:
        yield (
            f"delivery.smarthost: all mail{_except(config)} goes to {delivery.smarthost.host};"
            " MX records, MTA-STS policies and TLSA records of destinations do not count"
        )
        return
    for domain, smarthost in delivery.sender_smarthosts.items():
        if smarthost.host:
            yield (
                f"delivery.sender_smarthosts.{domain}: its mail goes to {smarthost.host};"
                " MX records, MTA-STS policies and TLSA records of destinations do not count for it"
            )


def _except(config: Config) -> str:
    """Which mail does not go to the smarthost for all."""
    exempt = {
        "to domains.local": config.domains.local,
        "to domains.relay": config.domains.relay,
        "from delivery.sender_smarthosts": config.delivery.sender_smarthosts,
    }
    words = [word for word, domains in exempt.items() if domains]
    return f" but that {' and '.join(words)}" if words else ""


def _dane(config: Config) -> Iterator[str]:
    # By default it is on, for the day when the resolver validates; that is no surprise.
    asked_for = config.delivery.dane and "dane" in config.delivery.model_fields_set
    if asked_for and not config.dns.validating:
        yield "delivery.dane: TLSA records do not count, because dns.validating is false"
