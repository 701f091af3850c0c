"""`delivery`, `mailbox`: where accepted mail goes and how often it is tried."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.common.config.types import Duration, FilePath, Section


class Retry(Section):
    """When to try again, and when to give up."""

    max_retries: Annotated[int, Field(ge=0, le=10_000)] = 24
    interval: Duration = timedelta(minutes=60)


class Smarthost(Section):
    """A mail exchange that takes everything that is not local."""

    host: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Blank: 25, or 587 with credentials."""
    username: str = ""
    password_file: FilePath | None = None


class Dkim(Section):
    """Signing of outgoing mail."""

    enabled: bool = False


class Delivery(Section):
    """Outgoing mail."""

    retry: Retry = Retry()
    smarthost: Smarthost = Smarthost()
    dkim: Dkim = Dkim()
    require_tls: bool = False


class Mailbox(Section):
    """Local mailboxes."""

    directory: FilePath = Path("/var/mail/gatepost")
