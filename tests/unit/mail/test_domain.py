"""Domains, what clients call themselves, and destinations as tokens of subjects."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.mail.address import (
    AddressError,
    HeloKind,
    destination_of_token,
    parse_domain,
    parse_helo,
    subject_token,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Example.ORG", "example.org"),
        ("a", "a"),
        ("3com.example", "3com.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("d" * 63 + ".example", "d" * 63 + ".example"),
        (".".join(["d" * 63] * 3 + ["d" * 61]), ".".join(["d" * 63] * 3 + ["d" * 61])),
    ],
)
def test_domains(text: str, canonical: str) -> None:
    assert parse_domain(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "example.org.",
        ".example.org",
        "example..org",
        "_dmarc.example.org",
        "example.org\n",
        "example.org\x00",
        "exam ple.org",
        "-a.example",
        "a-.example",
        "192.0.2.1",
        "[192.0.2.1]",
        "example.0x7f",
        "d" * 64 + ".example",
        ".".join(["d" * 63] * 3 + ["d" * 62]),
        "ü" * 200 + ".example",
        "ü" * 300,
        "*.example.org",
        ">",
        "a~b",
    ],
)
def test_refuses_domains(text: str) -> None:
    with pytest.raises(AddressError):
        parse_domain(text)


@pytest.mark.parametrize(
    ("text", "kind", "value", "address"),
    [
        ("mail.Example.org", HeloKind.DOMAIN, "mail.example.org", None),
        ("mail.example.org ", HeloKind.DOMAIN, "mail.example.org", None),
        ("localhost", HeloKind.DOMAIN, "localhost", None),
        ("xn--bcher-kva.example", HeloKind.DOMAIN, "xn--bcher-kva.example", None),
        ("[192.0.2.1]", HeloKind.LITERAL, "[192.0.2.1]", "192.0.2.1"),
        ("[ipv6:2001:db8:0::1]", HeloKind.LITERAL, "[IPv6:2001:db8::1]", "2001:db8::1"),
        ("192.0.2.1", HeloKind.INVALID, "192.0.2.1", None),
        ("[192.0.2.300]", HeloKind.INVALID, "[192.0.2.300]", None),
        ("WIN_HOST", HeloKind.INVALID, "WIN_HOST", None),
        ("mail.example.org.", HeloKind.INVALID, "mail.example.org.", None),
        ("bücher.example", HeloKind.INVALID, "bücher.example", None),
        ("two words", HeloKind.INVALID, "two words", None),
        ("", HeloKind.INVALID, "", None),
        ("a\r\nX-Injected: yes", HeloKind.INVALID, "a  X-Injected: yes", None),
        ("a\x00b\x1b[31m\x7f\u202e", HeloKind.INVALID, "a?b?[31m??", None),
        ("_" * 300, HeloKind.INVALID, "_" * 252 + "...", None),
    ],
)
def test_helo(text: str, kind: HeloKind, value: str, address: str | None) -> None:
    name = parse_helo(text)
    assert (name.kind, name.value, str(name)) == (kind, value, value)
    assert (str(name.address) if name.address else None) == address


@given(st.text())
@example("[\ud800]")
def test_any_helo_becomes_one_printable_line(text: str) -> None:
    name = parse_helo(text)
    assert not {character for character in str(name) if ord(character) < 32}
    assert len(str(name).encode()) <= 255


@pytest.mark.parametrize(
    ("destination", "token"),
    [
        ("example.org", "example~org"),
        ("a-b.example", "a-b~example"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva~example"),
        ("[192.0.2.1]", "ip4_192~0~2~1"),
        ("[IPv6:2001:db8::1]", "ip6_2001-db8--1"),
        ("[IPv6:::]", "ip6_--"),
        ("[IPv6:::ffff:192.0.2.1]", "ip6_--ffff-192~0~2~1"),
    ],
)
def test_tokens(destination: str, token: str) -> None:
    assert subject_token(destination) == token
    assert destination_of_token(token) == destination


@pytest.mark.parametrize(
    "destination",
    [
        "", "*", ">", "a.*", "a.>", "Example.org", "bücher.example", "example.org.", "a b", "a\tb",
        "ip4_192", "a~b", "[IPv6:2001:DB8::1]", "[192.0.2.1", "user@example.org", "a..b", "$SYS",
    ],
)  # fmt: skip
def test_no_token_for_what_is_no_destination(destination: str) -> None:
    with pytest.raises(AddressError):
        subject_token(destination)


@pytest.mark.parametrize(
    "token",
    [
        "", "*", ">", "example.org", "a~~b", "~a", "Example~org", "ip4_", "ip4_1~2~3", "ip6_",
        "a b", "ip6_2001-DB8--1", "ip6_0-0-0-0-0-0-0-1", "ip4_192.0.2.1", "ip4_192~0~2~01",
        "192~0~2~1",
    ],
)  # fmt: skip
def test_no_destination_for_what_is_no_token(token: str) -> None:
    with pytest.raises(AddressError):
        destination_of_token(token)


@given(st.text(max_size=20))
def test_a_token_is_one_token_of_a_subject(text: str) -> None:
    for turn in (subject_token, destination_of_token):
        for argument in (text, f"[{text}]", f"[IPv6:{text}]", f"ip6_{text}"):
            try:
                turned = turn(argument)
            except AddressError:
                continue
            token, destination = (turned, argument) if turn is subject_token else (argument, turned)
            assert not set(token) & set(". *>\t\r\n\0")
            assert destination_of_token(token) == destination


@given(st.ip_addresses())
def test_every_address_has_a_token(address: object) -> None:
    name = parse_helo(f"[{address}]" if "." in str(address) else f"[IPv6:{address}]")
    assert destination_of_token(subject_token(name.value)) == name.value
