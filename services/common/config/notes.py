"""What a valid configuration does that its writer may not expect, for `gatepost config check`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

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


def missing_files(config: Config, *, made_here: Path | None = None) -> list[str]:
    """One line for each file that a key names and that cannot be read on this machine.

    That is no mistake: it may be there where the service runs. What `gatepost up` makes by itself
    is not missed, with its folder in `made_here`.
    """
    return [
        f"{key}: {path} {why}; the service needs it where it runs"
        for key, path in _files(config, "")
        if not (made_here and _is_made(config, path, made_here)) and (why := _why_unreadable(path))
    ]


def _is_made(config: Config, path: Path, folder: Path) -> bool:
    is_password = config.nats.embedded and path == config.nats.password_file
    return is_password or path.absolute().parent == folder.absolute() / "tls"


def _files(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    """The files that are named at and below a key. Folders are made when they are needed."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, tuple) and not hasattr(value, "_fields"):
        items = list(enumerate(value))
    else:
        items = []
    for name, below in items:
        where = f"{key}.{name}" if key else str(name)
        if isinstance(below, Path) and where.endswith("_file"):
            yield where, below
        else:
            yield from _files(below, where)


def _why_unreadable(path: Path) -> str:
    """In words; blank if it can be read."""
    try:
        path.stat()
    except FileNotFoundError:
        return "does not exist here"
    except OSError as error:
        return f"cannot be read here ({error.strerror})"
    return "" if os.access(path, os.R_OK) else "cannot be read here (Permission denied)"
