"""TLSRPT from the session to the report that the domain gets."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.common.jetstream import JetStream
from services.common.queue.subjects import State
from services.delivery.smtp.tls_context import authenticating
from services.delivery.tls.https import Https
from services.delivery.tls.report import PolicyKind, Terms, TlsReport, TlsResult
from services.delivery.tls.reporter import TlsReporter
from services.delivery.tls.sts_policy import Mode, StsPolicy
from services.delivery.tls.sts_store import Fetched, StsStore
from tests.support.delivery import (
    DESTINATION,
    RECIPIENT,
    Delivery,
    FixedConfig,
    mail,
    queued,
    submit,
    wait_queued,
)
from tests.support.policy_host import PolicyHost, response
from tests.support.resolver import FakeResolver
from tests.support.smtp_peer import SmtpPeer
from tests.support.tls_chains import Issued

MX = f"mx.{DESTINATION}"
ASKS = (f"_smtp._tls.{DESTINATION}", "TXT")
CONFIG: dict[str, Any] = {
    "smtp": {"hostname": "mail.example.test"},
    "domains": {"local": ["example.org"]},
    "delivery": {
        "allowed_networks": ["127.0.0.0/8"],
        "tls_reports": {"enabled": True},
        "dkim": {"enabled": False},
    },
}
SESSION = TlsReport(
    f"{MX} [127.0.0.1]",
    PolicyKind.NONE,
    TlsResult.SUCCESS,
    name=MX,
    address="127.0.0.1",
    terms=Terms(DESTINATION, DESTINATION),
)


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer() as peer:
        yield peer


def resolver() -> FakeResolver:
    return FakeResolver(
        {
            (DESTINATION, "MX"): [f"10 {MX}"],
            (MX, "A"): ["127.0.0.1"],
            ASKS: [f"v=TLSRPTv1; rua=mailto:tls@{DESTINATION}"],
        }
    )


def https(
    answers: FakeResolver, authority: Issued | None = None, folder: Path = Path(), port: int = 1
) -> Https:
    """What posts reports, to a port of loopback."""
    file = folder / "ca.pem" if authority is not None else None
    if file is not None and authority is not None:
        file.write_bytes(authority.pem)
    return Https(
        answers,
        allowed=lambda: (ip_network("127.0.0.0/8"),),
        context=lambda: authenticating(file),
        port=port,
        seconds=30.0,
    )


def told(content: bytes) -> dict[str, Any]:
    """The document in a report."""
    _, attached = message_from_bytes(content, policy=default).iter_parts()
    found: dict[str, Any] = json.loads(gzip.decompress(attached.get_content()))
    return found


async def test_a_process_that_ends_tells_what_it_saw(store: JetStream, peer: SmtpPeer) -> None:
    async with Delivery(store, CONFIG, resolver=resolver(), mx_port=peer.port) as delivery:
        await submit(store, mail(RECIPIENT))
        await peer.wait_mails(1)
        await wait_queued(store)
        await delivery.reporter.close()
        await peer.wait_mails(2)
        await wait_queued(store)
    report = peer.mails[1]
    assert report.mail_from == "postmaster@example.org"
    assert report.rcpt_to == [f"tls@{DESTINATION}"]
    [policy] = told(report.content)["policies"]
    assert policy["policy"] == {"policy-type": "no-policy-found", "policy-domain": DESTINATION}
    assert policy["summary"] == {
        "total-successful-session-count": 0,
        "total-failure-session-count": 1,
    }
    [failure] = policy["failure-details"]
    assert failure == {
        "result-type": "starttls-not-supported",
        "receiving-mx-hostname": MX,
        "receiving-ip": "127.0.0.1",
        "failed-session-count": 1,
    }


async def test_a_day_is_told_when_it_is_over(store: JetStream) -> None:
    moment = datetime(2026, 3, 4, 23, 59, tzinfo=UTC)
    answers = resolver()
    reporter = TlsReporter(
        store,
        FixedConfig(CONFIG),
        answers,
        https(answers),
        now=lambda: moment,
        spread_s=0.0,
        look_s=0.01,
    )
    reporter.add(SESSION)
    following = asyncio.create_task(reporter.follow())
    try:
        await asyncio.sleep(0.1)
        assert await queued(store) == []
        moment += timedelta(minutes=2)
        [record] = await wait_queued(store, State.READY)
    finally:
        following.cancel()
    document = told(record.inline_content)
    assert document["date-range"] == {
        "start-datetime": "2026-03-04T23:59:00Z",
        "end-datetime": "2026-03-05T00:00:00Z",
    }
    assert record.encryption_optional
    assert list(record.recipients[0].notify) == ["NEVER"]
    assert not record.client_address  # so that it is signed
    reporter.add(SESSION)
    await reporter.close()
    [_, second] = await wait_queued(store, State.READY, State.READY)
    assert told(second.inline_content)["date-range"] == {
        "start-datetime": "2026-03-05T00:00:00Z",
        "end-datetime": "2026-03-05T00:01:00Z",
    }


@pytest.mark.parametrize("case", ["disabled", "not asked for", "nothing sent"])
async def test_nobody_is_told(store: JetStream, case: str) -> None:
    answers, config = resolver(), FixedConfig(CONFIG)
    if case == "disabled":
        config.change({"smtp": {"hostname": "mail.example.test"}})
    elif case == "not asked for":
        del answers.records[ASKS]
    reporter = TlsReporter(store, config, answers, https(answers), now=lambda: datetime.now(UTC))
    if case != "nothing sent":
        reporter.add(SESSION)
    await reporter.close()
    assert await queued(store) == []
    assert bool(answers.queries) == (case == "not asked for")


async def test_the_sender_can_be_chosen(store: JetStream) -> None:
    chosen = {"tls_reports": {"enabled": True, "sender": "tls@example.org"}}
    answers = resolver()
    reporter = TlsReporter(
        store,
        FixedConfig({**CONFIG, "delivery": chosen}),
        answers,
        https(answers),
        now=lambda: datetime.now(UTC),
    )
    reporter.add(SESSION)
    await reporter.close()
    [record] = await wait_queued(store, State.READY)
    assert record.sender == "tls@example.org"
    assert told(record.inline_content)["contact-info"] == "tls@example.org"


@pytest.mark.parametrize(("status", "outcome"), [("200 OK", "posted"), ("500 No", "failed")])
async def test_a_report_is_posted_once(
    store: JetStream, tmp_path: Path, status: str, outcome: str
) -> None:
    root, answers = Issued.root("root"), resolver()
    answers.records[ASKS] = ["v=TLSRPTv1; rua=https://tls.dest.test/report?a=b"]
    answers.records["tls.dest.test", "A"] = ["127.0.0.1"]
    before = counted(outcome)
    async with PolicyHost(root.issue("tls.dest.test").server_context()) as host:
        host.answer = response("", status=status)
        reporter = TlsReporter(
            store,
            FixedConfig(CONFIG),
            answers,
            https(answers, root, tmp_path, host.port),
            now=lambda: datetime.now(UTC),
        )
        reporter.add(SESSION)
        await reporter.close()
        assert host.requests == [("POST /report?a=b HTTP/1.1", f"tls.dest.test:{host.port}")]
        [(kind, body)] = host.posted
    assert kind == "application/tlsrpt+gzip"
    assert (
        json.loads(gzip.decompress(body))["policies"][0]["policy"]["policy-domain"] == DESTINATION
    )
    assert counted(outcome) == before + 1
    assert await queued(store) == []


def counted(result: str) -> float:
    """How many reports ended so."""
    name = "gatepost_delivery_tls_reports_total"
    return REGISTRY.get_sample_value(name, {"result": result}) or 0.0


async def test_only_reports_go_where_encryption_that_is_demanded_cannot_be_had(
    store: JetStream, peer: SmtpPeer
) -> None:
    policy = StsPolicy(Mode.ENFORCE, (MX,), timedelta(days=1))
    kept = StsStore(store, now=lambda: datetime.now(UTC), clock=lambda: 0.0)
    await kept.keep(DESTINATION, Fetched(policy, "1", datetime.now(UTC)))
    names = resolver()
    names.records[f"_mta-sts.{DESTINATION}", "TXT"] = ["v=STSv1; id=1;"]
    usual, report = mail(RECIPIENT), mail(RECIPIENT, encryption_optional=True)
    async with Delivery(store, CONFIG, resolver=names, mx_port=peer.port) as delivery:
        await submit(store, usual)
        await wait_queued(store, State.DEFERRED)
        await submit(store, report)
        await peer.wait_mails(1)
        [waiting] = await wait_queued(store, State.DEFERRED)
        assert waiting.message_id == usual.message_id
        await delivery.reporter.close()
        await peer.wait_mails(2)
        await wait_queued(store, State.DEFERRED)
    assert len(peer.mails) == 2
    # The session that was relaxed for a report is not told of.
    [met] = told(peer.mails[1].content)["policies"]
    assert met["policy"]["policy-string"] == list(policy.lines)
    assert met["summary"]["total-failure-session-count"] == 1
