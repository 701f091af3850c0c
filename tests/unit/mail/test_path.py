"""Paths of MAIL and RCPT: what stands in the brackets, what follows them, and what is neither."""

import pytest

from services.common.mail.address import (
    POSTMASTER,
    AddressError,
    NoAddress,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
)

DOMAIN_253 = ".".join(["d" * 63, "d" * 63, "d" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("argument", "sender", "parameters"),
    [
        ("<>", None, ""),
        ("<> SIZE=10", None, "SIZE=10"),
        ("<a@b.example>", "a@b.example", ""),
        (" <a@b.example>", "a@b.example", ""),
        ("<a@b.example> ", "a@b.example", ""),
        ("<a@b.example>  SIZE=10  BODY=7BIT ", "a@b.example", "SIZE=10  BODY=7BIT"),
        ("<a@b.example> X=<c@d.example>", "a@b.example", "X=<c@d.example>"),
        ("<@relay.example:a@b.example>", "a@b.example", ""),
        ("<@one.example,@two.example:a@b.example> SIZE=1", "a@b.example", "SIZE=1"),
        ('<"a>b"@c.example> SIZE=1', '"a>b"@c.example', "SIZE=1"),
        (r'<"a\">b"@c.example>', r'"a\">b"@c.example', ""),
        ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", ""),
    ],
)
def test_reverse_paths(argument: str, sender: str | None, parameters: str) -> None:
    mailbox, rest = parse_reverse_path(argument, smtputf8=False)
    assert (mailbox and str(mailbox)) == sender
    assert rest == parameters


@pytest.mark.parametrize("argument", ["<postmaster>", "<Postmaster>", " <POSTMASTER> "])
def test_bare_postmaster_is_a_recipient_but_no_sender(argument: str) -> None:
    assert parse_forward_path(argument, smtputf8=False) == (POSTMASTER, "")
    with pytest.raises(AddressError):
        parse_reverse_path(argument, smtputf8=False)


def test_the_empty_path_is_no_recipient() -> None:
    with pytest.raises(AddressError):
        parse_forward_path("<>", smtputf8=False)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        " ",
        "a@b.example",
        "<",
        ">",
        "<a@b.example",
        "a@b.example>",
        "<<a@b.example>>",
        "<a@b.example>>",
        "<a@b.example>SIZE=10",
        "<a@b.example><c@d.example>",
        "<a@b.example>\tSIZE=10",
        "\t<a@b.example>",
        "A <a@b.example>",
        "< a@b.example>",
        "<a@b.example >",
        "< >",
        "<a>",
        '<"a@b.example>',
        "<@relay.example>",
        "<@relay.example:>",
        "<@relay.example:postmaster>",
        "<@relay.example:@other.example:a@b.example>",
        "<@relay.example,a@b.example>",
        "<@relay.example,other.example:a@b.example>",
        "<@:a@b.example>",
        "<@relay.example,:a@b.example>",
        "<@re_lay.example:a@b.example>",
        "<@[192.0.2.1]:a@b.example>",
        "<relay.example:a@b.example>",
        f"<{'l' * 64}@{'d' * 63}.{'d' * 63}.{'d' * 63}>",
        f"<@{DOMAIN_253}:a@b.example>",
        "<ä@b.example>",
    ],
)
def test_refuses_paths(argument: str) -> None:
    for parse in (parse_reverse_path, parse_forward_path):
        with pytest.raises(AddressError):
            parse(argument, smtputf8=False)


def test_a_path_of_256_octets_is_the_longest() -> None:
    domain = ".".join(["d" * 63, "d" * 63, "d" * 61])
    local = "l" * (256 - len(f"<@{domain}>"))
    assert parse_reverse_path(f"<{local}@{domain}>", smtputf8=False)[0]
    with pytest.raises(AddressError):
        parse_reverse_path(f"<{local}l@{domain}>", smtputf8=False)
    with pytest.raises(AddressError):
        parse_mailbox(f"{local}l@{domain}")


@pytest.mark.parametrize(
    ("argument", "word", "parameters"),
    [
        ("<a>", "a", ""),
        ("<a@> SIZE=10 BODY=7BIT", "a@", "SIZE=10 BODY=7BIT"),
        ("<a@b_c.example>", "a@b_c.example", ""),
        ("<a..b@c.example>", "a..b@c.example", ""),
        ("<@relay.example:postmaster>", "@relay.example:postmaster", ""),
        (f"<{'l' * 65}@c.example>", f"{'l' * 65}@c.example", ""),
    ],
)
def test_a_word_that_is_no_address_can_be_judged(argument: str, word: str, parameters: str) -> None:
    with pytest.raises(NoAddress) as caught:
        parse_reverse_path(argument, smtputf8=False)
    assert (caught.value.word, caught.value.parameters) == (word, parameters)


@pytest.mark.parametrize(
    "argument",
    ["a", "<a", "<a>x", "< >", "<a b>", "<a\tb>", "<a\x7fb>", "<a\u202eb>", "<a<b>", "<a>b>"],
)
def test_what_is_no_word_is_a_bad_command(argument: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_reverse_path(argument, smtputf8=True)
    assert not isinstance(caught.value, NoAddress)
