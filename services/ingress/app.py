"""The process of the ingress: its parts, put together, and the long-lived tasks."""

from __future__ import annotations

import logging

from services.common.app import Context, Stage
from services.common.app import run as run_process
from services.common.config.model import Config
from services.common.config.smtp import Smtp
from services.common.config.source import ConfigSource
from services.common.log import WARNING, event
from services.common.tls import CertificateFiles, ServerTls
from services.common.wiring import open_channel, open_store, process
from services.ingress.cleaner import FINISH_S, Cleaner
from services.ingress.dialogue import Edge
from services.ingress.gate import Gate
from services.ingress.listeners import Listeners
from services.ingress.login_guard import LoginGuard
from services.ingress.mail_store import MailStore
from services.ingress.policy import Policy
from services.ingress.storage_watch import StorageWatch
from services.ingress.suspicion import Suspicion

_log = logging.getLogger(__name__)


def run(source: ConfigSource) -> int:
    """Run the ingress until it is told to stop. The exit code."""

    async def start(context: Context) -> None:
        await start_ingress(context, source)

    return run_process(process(source.current, "ingress"), start)


async def start_ingress(context: Context, source: ConfigSource) -> Listeners:
    """Start all parts. Returns when every port is bound."""
    config = source.current
    store = await open_store(context, config)
    cleaner = Cleaner(store)
    policy = Policy(
        open_channel(context, config, config.services.policy),
        check_timeout_s=lambda: _check_timeout_s(source.current),
    )
    context.on_stop(Stage.CLOSE, "streams to policy", policy.close)
    tls = _server_tls(source)
    watch = StorageWatch(store, lambda: source.current.smtp.limits)
    mail_store = MailStore(store, cleaner, is_full=lambda: watch.is_full)
    guard = LoginGuard(store, lambda: source.current.smtp.limits)
    edge = Edge(source, policy, mail_store, guard)
    suspicion = Suspicion()
    listeners = Listeners(edge, Gate(suspicion), tls)
    # The cleaner comes after the sessions, within the same grace period.
    grace_s = max(context.process.grace - FINISH_S, context.process.grace / 2)
    context.on_stop(Stage.DRAIN, "sessions", lambda: listeners.drain(grace_s=grace_s))
    context.on_stop(Stage.DRAIN, "cleaner", cleaner.finish)
    context.spawn("config", source.follow())
    context.spawn("cleaner", cleaner.run())
    context.spawn("storage", watch.run())
    if tls is not None:
        context.spawn("certificates", tls.watch())
    await listeners.start(context.spawn)
    return listeners


def _check_timeout_s(config: Config) -> float:
    return config.policy.check_timeout.total_seconds()


def _server_tls(source: ConfigSource) -> ServerTls | None:
    """The certificate of all listeners, as the configuration names it; None if there is none.

    Raises `StartError`.
    """
    first = _certificates(source.current.smtp)
    tls = ServerTls(first) if first else None
    if tls is not None:
        tls.load()

    def follow(config: Config) -> None:
        files = _certificates(config.smtp)
        if tls is not None and files:
            tls.exchange(files)
        elif tls is not None or files:
            what = "a first certificate" if files else "no certificate any more"
            event(_log, WARNING, f"smtp.tls names {what}: this takes effect after a restart")

    source.subscribe(follow)
    return tls


def _certificates(smtp: Smtp) -> list[CertificateFiles]:
    files = smtp.tls
    if files.certificate_file is None or files.key_file is None:
        return []
    further = (CertificateFiles(each.certificate_file, each.key_file) for each in files.further)
    return [CertificateFiles(files.certificate_file, files.key_file), *further]
