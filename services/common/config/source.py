"""The configuration of a running process, which follows its file.

A changed file is read, checked as a whole and then put in place at once; `subscribe` tells who
wants to know. A file that is wrong changes nothing: the old configuration stays, an error line
names the mistakes and a gauge goes to 0. Content is compared, not times, so an atomic swap of a
symbolic link (which is how a ConfigMap changes) is seen like any other change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter, Gauge

from services.common.config.loader import ConfigError, load
from services.common.config.model import Config

_log = logging.getLogger(__name__)

POLL_INTERVAL_S: Final = 1.0
"""How often the file is looked at. Reading a few KiB costs less than a file watcher would."""

VALID = Gauge(
    "gatepost_config_valid",
    "1 while the configuration file is valid, 0 while an older one is in use.",
)
RELOADS = Counter(
    "gatepost_config_reloads_total", "Changed configuration files, by what came of it.", ["result"]
)

NEEDS_RESTART: Final = (
    "smtp.hostname",
    "smtp.listeners",
    "services",
    "nats",
    "keys.store",
    "keys.directory",
    "keys.namespace",
    "keys.publication_servers",
    "dns",
    "auth",
    "log",
)
"""Settings that take effect when the process starts and at no other time."""


class ConfigSource:
    """The current configuration, and news of it. Raises `ConfigError` when the first load fails."""

    def __init__(self, path: Path | None, *, defaults: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._defaults = dict(defaults or {})
        self._content = _content(path)
        self.current = load(path, defaults=self._defaults)
        self._subscribers: list[Callable[[Config], None]] = []
        VALID.set(1)

    def subscribe(self, callback: Callable[[Config], None]) -> None:
        """Call back with each new configuration. One that fails is logged and the others go on."""
        self._subscribers.append(callback)

    async def follow(self) -> None:
        """Watch the file for ever."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            self.refresh()

    def refresh(self) -> None:
        """Look at the file now and put it in place if it changed and is valid."""
        content = _content(self.path)
        if content == self._content:
            return
        self._content = content
        try:
            config = load(self.path, defaults=self._defaults)
        except ConfigError as error:
            VALID.set(0)
            RELOADS.labels("invalid").inc()
            _log.error(
                "the changed configuration is not valid, the old one stays: %s",
                "; ".join(error.problems),
            )
            return
        VALID.set(1)
        RELOADS.labels("applied").inc()
        previous, self.current = self.current, config
        _log.info("the changed configuration is in place")
        for key in NEEDS_RESTART:
            if _at(previous, key) != _at(config, key):
                _log.warning("%s changed: this takes effect after a restart", key)
        for callback in self._subscribers:
            try:
                callback(config)
            except Exception:  # noqa: BLE001 - a subscriber must not stop the others
                _log.exception("a part of this process could not take the changed configuration")


def _content(path: Path | None) -> bytes | None:
    """The file's octets; None while it cannot be read (`load` then says why)."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError:
        return None


def _at(config: Config, key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
