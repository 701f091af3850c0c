"""Trace fields: what they say, and that strangers cannot make them say anything else."""

from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.mail.address import AddressError, HeloName, Mailbox, parse_helo
from services.common.mail.domain import HeloKind
from services.common.mail.message import parse_header
from services.common.mail.trace import (
    Origin,
    Protocol,
    TlsSession,
    date_text,
    received_field,
    return_path_field,
)

MOMENT = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
ONE = Mailbox("user", "example.org")
TWO = Mailbox("other", "example.org")
FOREIGN = Mailbox("jörg", "example.org")


def received(
    *,
    helo: str = "client.example",
    address: str = "192.0.2.1",
    reverse_name: str | None = None,
    protocol: Protocol = Protocol(),  # noqa: B008 - frozen
    recipients: tuple[Mailbox, ...] = (ONE,),
    tls: TlsSession | None = None,
) -> str:
    """The unfolded value of a Received field."""
    raw = received_field(
        origin=Origin(parse_helo(helo), ip_address(address), reverse_name),
        by="mx.example.test",
        protocol=protocol,
        message_id="0abc-1",
        recipients=recipients,
        received_at=MOMENT,
        tls=tls,
    )
    (field,) = parse_header(raw).fields
    assert field.name == "Received"
    return field.text


def test_a_whole_field() -> None:
    raw = received_field(
        origin=Origin(parse_helo("Client.example"), ip_address("192.0.2.1"), "Host.Example."),
        by="mx.example.test",
        protocol=Protocol(tls=True),
        message_id="0abc-1",
        recipients=[ONE],
        received_at=MOMENT,
        tls=TlsSession("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    )
    assert raw.decode() == (
        "Received: from client.example (host.example [192.0.2.1])\r\n"
        " by mx.example.test (Gatepost)\r\n"
        " with ESMTPS (version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384)\r\n"
        " id 0abc-1 for <user@example.org>; Tue, 4 Mar 2025 05:06:07 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("protocol", "keyword"),
    [
        (Protocol(), "ESMTP"),
        (Protocol(tls=True), "ESMTPS"),
        (Protocol(authenticated=True), "ESMTPA"),
        (Protocol(tls=True, authenticated=True), "ESMTPSA"),
        (Protocol(esmtp=False), "SMTP"),
        (Protocol(esmtp=False, tls=True), "SMTP"),
        (Protocol(smtputf8=True), "UTF8SMTP"),
        (Protocol(smtputf8=True, tls=True), "UTF8SMTPS"),
        (Protocol(smtputf8=True, authenticated=True), "UTF8SMTPA"),
        (Protocol(smtputf8=True, tls=True, authenticated=True), "UTF8SMTPSA"),
        (Protocol(lmtp=True), "LMTP"),
        (Protocol(lmtp=True, tls=True, authenticated=True), "LMTPSA"),
        (Protocol(lmtp=True, smtputf8=True), "UTF8LMTP"),
    ],
)
def test_keywords(protocol: Protocol, keyword: str) -> None:
    assert f" with {keyword} id " in received(protocol=protocol)


@pytest.mark.parametrize(
    ("helo", "address", "reverse_name", "clause"),
    [
        ("Client.Example", "192.0.2.1", None, "from client.example ([192.0.2.1]) by"),
        ("a.example", "2001:db8::1", "", "from a.example ([IPv6:2001:db8::1]) by"),
        ("[192.0.2.9]", "192.0.2.1", None, "from [192.0.2.9] ([192.0.2.1]) by"),
        ("a.example", "192.0.2.1", "b.example.", "from a.example (b.example [192.0.2.1]) by"),
        ("a.example", "192.0.2.1", "evil) by x (", "from a.example ([192.0.2.1]) by"),
        ("a.example", "192.0.2.1", "a\r\nX: y", "from a.example ([192.0.2.1]) by"),
        ("WIN_HOST", "192.0.2.1", "b.example", "from [192.0.2.1] (helo WIN_HOST) by"),
        ("", "192.0.2.1", None, "from [192.0.2.1] (helo ?) by"),
        ("x) by evil (", "192.0.2.1", None, "from [192.0.2.1] (helo x??by?evil??) by"),
        ("x\\", "192.0.2.1", None, "from [192.0.2.1] (helo x?) by"),
        ("x; Mon", "192.0.2.1", None, "from [192.0.2.1] (helo x??Mon) by"),
        ("a\r\nX-Injected: y", "192.0.2.1", None, "from [192.0.2.1] (helo a??X-Injected:?y) by"),
        ("jörg", "192.0.2.1", None, "from [192.0.2.1] (helo j?rg) by"),
        ("_" * 300, "192.0.2.1", None, f"from [192.0.2.1] (helo {'_' * 128}) by"),
    ],
)
def test_from_clause(helo: str, address: str, reverse_name: str | None, clause: str) -> None:
    assert received(helo=helo, address=address, reverse_name=reverse_name).startswith(clause)


@pytest.mark.parametrize(
    ("recipients", "utf8", "clause"),
    [
        ((ONE,), False, " id 0abc-1 for <user@example.org>; "),
        ((ONE, TWO), False, " id 0abc-1; "),
        ((), False, " id 0abc-1; "),
        ((Mailbox('a" b', "example.org"),), False, r' for <"a\" b"@example.org>; '),
        ((Mailbox("; Mon", "example.org"),), False, ' for <"; Mon"@example.org>; '),
        ((FOREIGN,), True, " for <jörg@example.org>; "),
        ((FOREIGN,), False, " id 0abc-1; "),
    ],
)
def test_for_clause(recipients: tuple[Mailbox, ...], utf8: bool, clause: str) -> None:
    assert clause in received(recipients=recipients, protocol=Protocol(smtputf8=utf8))


def test_tls_names_are_made_harmless() -> None:
    text = received(tls=TlsSession("TLS(", "x)\r\nY: z"), protocol=Protocol(tls=True))
    assert " with ESMTPS (version=TLS? cipher=x???Y:?z) id " in text


def test_by_must_be_a_domain() -> None:
    with pytest.raises(AddressError):
        received_field(
            origin=Origin(parse_helo("a"), ip_address("192.0.2.1")),
            by="mx example",
            protocol=Protocol(),
            message_id="0abc-1",
            recipients=[],
            received_at=MOMENT,
        )


@pytest.mark.parametrize(
    ("sender", "raw"),
    [
        (None, b"Return-Path: <>\r\n"),
        (ONE, b"Return-Path: <user@example.org>\r\n"),
        (Mailbox("a b", "example.org"), b'Return-Path: <"a b"@example.org>\r\n'),
        (FOREIGN, "Return-Path: <jörg@example.org>\r\n".encode()),
    ],
)
def test_return_path(sender: Mailbox | None, raw: bytes) -> None:
    assert return_path_field(sender) == raw


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (MOMENT, "Tue, 4 Mar 2025 05:06:07 +0000"),
        (
            datetime(2024, 12, 29, 23, 59, 59, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
            "Sun, 29 Dec 2024 23:59:59 -0330",
        ),
    ],
)
def test_dates(moment: datetime, text: str) -> None:
    assert date_text(moment) == text


def test_a_date_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        date_text(MOMENT.replace(tzinfo=None))


@given(helo=st.text(), reverse_name=st.text(), version=st.text(), cipher=st.text(), id=st.text())
def test_strangers_cannot_bend_a_field(
    helo: str, reverse_name: str, version: str, cipher: str, id: str
) -> None:
    raw = received_field(
        origin=Origin(HeloName(HeloKind.INVALID, helo), ip_address("2001:db8::1"), reverse_name),
        by="mx.example.test",
        protocol=Protocol(),
        message_id=id,
        recipients=[],
        received_at=MOMENT,
        tls=TlsSession(version, cipher),
    )
    (field,) = parse_header(raw).fields
    assert raw.isascii()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    # Two comments on the names and one on ourselves, the one `;` before the date.
    assert (field.text.count("("), field.text.count(")"), field.text.count(";")) == (3, 3, 1)
    assert field.text.endswith("; Tue, 4 Mar 2025 05:06:07 +0000")
