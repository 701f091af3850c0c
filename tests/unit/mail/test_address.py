"""Addresses: what is one, what it means, and the tricks that must not work."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.mail.address import (
    AddressError,
    Mailbox,
    make_mailbox,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
)

LOCAL_64 = "l" * 64
DOMAIN_253 = ".".join(["d" * 63, "d" * 63, "d" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("text", "local_part", "domain", "printed"),
    [
        ("user@example.org", "user", "example.org", "user@example.org"),
        ("User@EXAMPLE.Org", "User", "example.org", "User@example.org"),
        ("user+tag@example.org", "user+tag", "example.org", "user+tag@example.org"),
        ("a.b.c@example.org", "a.b.c", "example.org", "a.b.c@example.org"),
        ("!#$%&'*+-/=?^_`{|}~@a.example", "!#$%&'*+-/=?^_`{|}~", "a.example", None),
        ("user@localhost", "user", "localhost", "user@localhost"),
        ("user@1and1.example", "user", "1and1.example", None),
        ("user@r3---sn-4g5e.example", "user", "r3---sn-4g5e.example", None),
        ('"user"@example.org', "user", "example.org", "user@example.org"),
        ('"a b"@example.org', "a b", "example.org", '"a b"@example.org'),
        ('"a..b"@example.org', "a..b", "example.org", '"a..b"@example.org'),
        ('".a"@example.org', ".a", "example.org", '".a"@example.org'),
        (r'"a\"b\\c"@example.org', r'a"b\c', "example.org", r'"a\"b\\c"@example.org'),
        (r'"\a\b"@example.org', "ab", "example.org", "ab@example.org"),
        ('"a@b"@example.org', "a@b", "example.org", '"a@b"@example.org'),
        ('"<a>"@example.org', "<a>", "example.org", '"<a>"@example.org'),
        ("user@[192.0.2.1]", "user", "[192.0.2.1]", "user@[192.0.2.1]"),
        ("user@[ipv6:2001:DB8:0::1]", "user", "[IPv6:2001:db8::1]", "user@[IPv6:2001:db8::1]"),
        ("user@[IPv6:::ffff:192.0.2.1]", "user", "[IPv6:::ffff:192.0.2.1]", None),
        ("user@[IPv6:::ffff:c000:201]", "user", "[IPv6:::ffff:192.0.2.1]", None),
        ("user@xn--bcher-kva.example", "user", "xn--bcher-kva.example", None),
        (f"{LOCAL_64}@example.org", LOCAL_64, "example.org", None),
        ("PostMaster", "postmaster", "", "postmaster"),
    ],
)
def test_accepts(text: str, local_part: str, domain: str, printed: str | None) -> None:
    mailbox = parse_mailbox(text)
    assert (mailbox.local_part, mailbox.domain) == (local_part, domain)
    assert printed is None or str(mailbox) == printed
    assert parse_mailbox(str(mailbox)) == mailbox


@pytest.mark.parametrize(
    "text",
    [
        # Relay tricks: legal spelling, an ordinary local part of the domain at the end.
        "user%elsewhere.example@example.org",
        "elsewhere.example!user@example.org",
        '"user@elsewhere.example"@example.org',
        '"user%elsewhere.example"@example.org',
        "=?utf-8?q?user=40elsewhere.example?=@example.org",
        "=?utf-8?B?dXNlckBlbHNld2hlcmU=?=@example.org",
        '"@elsewhere.example:user"@example.org',
        '"user@elsewhere.example>"@example.org',
    ],
)
def test_relay_tricks_stay_in_the_local_part(text: str) -> None:
    for mailbox in (parse_mailbox(text), parse_forward_path(f"<{text}>", smtputf8=True)[0]):
        assert mailbox.domain == "example.org"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "user",
        "user@",
        "@example.org",
        '""@example.org',
        ".user@example.org",
        "user.@example.org",
        "us..er@example.org",
        "us er@example.org",
        " user@example.org",
        "user@example.org ",
        "user@ example.org",
        "user @example.org",
        "user@@example.org",
        "user@elsewhere.example@example.org",
        "user@example.org@elsewhere.example",
        "user@example.org,other@example.org",
        "user@example.org;other",
        "<user@example.org>",
        "User <user@example.org>",
        "user(comment)@example.org",
        "user@(comment)example.org",
        "(comment)user@example.org",
        'us"er@example.org',
        '"user@example.org',
        '"us"er@example.org',
        '"us"."er"@example.org',
        '"us"er"@example.org',
        '"user\\"@example.org',
        "us\\er@example.org",
        "user@example.org.",
        "user@.example.org",
        "user@example..org",
        "user@-example.org",
        "user@example-.org",
        "user@exa_mple.org",
        "user@exa mple.org",
        "user@example.org:25",
        "user@example.org/",
        "user@*",
        "user@*.example.org",
        "user@>",
        "user@../../etc",
        "user@192.0.2.1",
        "user@example.123",
        "user@0x7f000001",
        "user@[192.0.2.1",
        "user@192.0.2.1]",
        "user@[192.0.2.1].example.org",
        "user@[192.0.2.256]",
        "user@[192.0.2.01]",
        "user@[192.0.2]",
        "user@[ 192.0.2.1]",
        "user@[]",
        "user@[IPv6:]",
        "user@[IPv6:192.0.2.1]",
        "user@[2001:db8::1]",
        "user@[IPv6:fe80::1%eth0]",
        "user@[IPv6:2001:db8::1::2]",
        "user@[example.org]",
        "user@[tag:content]",
        "user\x00@example.org",
        "user@example.org\x00",
        "user@exam\x00ple.org",
        '"us\x00er"@example.org',
        '"us\\\x00er"@example.org',
        "user\t@example.org",
        '"us\ter"@example.org',
        '"us\\\ter"@example.org',
        "user@example.org\r",
        "user@example.org\n",
        "user@example.org\r\nRCPT TO:<x@y.example>",
        '"us\r\ner"@example.org',
        '"us\\\ner"@example.org',
        "us\x7fer@example.org",
        '"us\x7fer"@example.org',
        "=?utf-8?q?user=40example.org?=",
        f"{LOCAL_64}l@example.org",
        f'"{"a" * 31}{" " * 32}"@example.org',
        f"user@{DOMAIN_253}",
        f"user@{'d' * 64}.example",
        "postmaster@",
        "abuse",
        "üser@example.org",
        "user@bücher.example",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_mailbox(text)
    assert caught.value.reason.isprintable()
    assert caught.value.reason.isascii()


@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("jörg@bücher.example", "jörg", "xn--bcher-kva.example"),
        ("jörg@BÜCHER.example", "jörg", "xn--bcher-kva.example"),
        ("用户@例子.example", "用户", "xn--fsqu00a.example"),
        ('"jörg müller"@example.org', "jörg müller", "example.org"),
        ("کتاب\u200cخانه@example.org", "کتاب\u200cخانه", "example.org"),
        ("user@straße.example", "user", "xn--strae-oqa.example"),
    ],
)
def test_accepts_utf8(text: str, local_part: str, domain: str) -> None:
    mailbox = parse_mailbox(text, smtputf8=True)
    assert (mailbox.local_part, mailbox.domain) == (local_part, domain)
    assert mailbox.needs_smtputf8 is not local_part.isascii()
    assert parse_mailbox(str(mailbox), smtputf8=True) == mailbox


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("user＠elsewhere.example@example.org", id="full-width @ in the local part"),
        pytest.param("user＠example.org", id="full-width @ alone"),
        pytest.param("ｕser@example.org", id="full-width letter in the local part"),
        pytest.param("user@ｅxample.org", id="full-width letter in the domain"),
        pytest.param("user@example。org", id="ideographic full stop"),
        pytest.param("user@example．org", id="full-width full stop"),
        pytest.param("user@example｡org", id="half-width full stop"),
        pytest.param("user@example․org", id="one dot leader"),
        pytest.param("us℀er@example.org", id="account-of sign"),
        pytest.param("user@exam\u200bple.org", id="zero-width space"),
        pytest.param("us\u200ber@example.org", id="zero-width space in the local part"),
        pytest.param("user@\u212aelvin.example", id="Kelvin sign"),
        pytest.param("\u212aelvin@example.org", id="Kelvin sign in the local part"),
        pytest.param("user@exam\u00adple.org", id="soft hyphen"),
        pytest.param("us\u202eer@example.org", id="right-to-left override"),
        pytest.param("us\u2028er@example.org", id="line separator"),
        pytest.param("us\u0085er@example.org", id="next line"),
        pytest.param("us\u009ber@example.org", id="control sequence introducer"),
        pytest.param("us\u00a0er@example.org", id="no-break space"),
        pytest.param("us\ud800er@example.org", id="surrogate"),
        pytest.param("user@exa\ud800mple.org", id="surrogate in the domain"),
        pytest.param("user@u\u0308ber.example", id="domain not normalised"),
        pytest.param("user@☃.example", id="symbol"),
        pytest.param("user@例_子.example", id="underscore in a U-label"),
        pytest.param("user@-例.example", id="hyphen before a U-label"),
        pytest.param("user@xn--例.example", id="A-label prefix on a U-label"),
        pytest.param("ö" * 33 + "@example.org", id="66 octets"),
        pytest.param("user@" + "ö" * 64 + ".example", id="label too long once encoded"),
    ],
)
def test_refuses_utf8(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_mailbox(text, smtputf8=True)
    assert caught.value.reason.isascii()
    with pytest.raises(AddressError):
        parse_forward_path(f"<{text}>", smtputf8=True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("User@example.org", "uSER@EXAMPLE.ORG", True),
        ('"user"@example.org', "user@example.org", True),
        ("JÖRG@bücher.example", "jörg@xn--bcher-kva.example", True),
        ("jo\u0308rg@example.org", "jörg@example.org", True),
        ("user@example.org", "user@example.net", False),
        ("user+a@example.org", "user@example.org", False),
        ("us.er@example.org", "user@example.org", False),
    ],
)
def test_keys_compare(one: str, other: str, same: bool) -> None:
    keys = {parse_mailbox(text, smtputf8=True).key for text in (one, other)}
    assert (len(keys) == 1) is same


def test_domains_for_people_and_literals() -> None:
    mailbox = parse_mailbox("user@BÜCHER.example", smtputf8=True)
    assert (mailbox.domain_unicode, mailbox.is_literal) == ("bücher.example", False)
    assert mailbox.literal_address is None
    literal = parse_mailbox("user@[IPv6:2001:db8::1]")
    assert (literal.domain_unicode, literal.is_literal) == ("[IPv6:2001:db8::1]", True)
    assert str(literal.literal_address) == "2001:db8::1"
    # Registered under older rules: works, but must not be shown as what it might look like.
    assert parse_mailbox("user@xn--i-7iq.example").domain_unicode == "xn--i-7iq.example"


@pytest.mark.parametrize(
    ("local_part", "domain"),
    [
        ("", "example.org"),
        ("user", ""),
        ("Postmaster", ""),
        ("user", "Example.org"),
        ("user", "bücher.example"),
        ("user", "example.org."),
        ("user", "[IPv6:2001:DB8::1]"),
        ("us\ner", "example.org"),
        ("l" * 65, "example.org"),
    ],
)
def test_no_mailbox_is_made_of_what_no_parser_gives(local_part: str, domain: str) -> None:
    with pytest.raises(AddressError):
        Mailbox(local_part, domain)


def test_make_mailbox_takes_any_spelling_of_the_domain() -> None:
    assert make_mailbox("a b", "BÜCHER.example") == Mailbox("a b", "xn--bcher-kva.example")


# Text near the grammar: pieces that mean something to a parser, and any other characters between.
_pieces = st.lists(
    st.one_of(
        st.sampled_from(
            ['"', "\\", "@", "<", ">", ":", ",", ".", "[", "]", " ", "IPv6:", "xn--", "=?", "%"]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)


@given(_pieces, st.booleans())
@example("a@xn--\ud800", True)
@example("a@\u200d.example", True)
def test_parsing_raises_nothing_but_address_error(text: str, smtputf8: bool) -> None:
    for parse in (parse_mailbox, parse_reverse_path, parse_forward_path):
        for argument in (text, f"<{text}>", f"user@{text}", f"<user@{text}>"):
            with suppress(AddressError):
                parse(argument, smtputf8=smtputf8)


_local_parts = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=30)
_labels = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
_domains = st.lists(_labels, min_size=1, max_size=4).map(".".join)


@given(_local_parts, _domains)
@example('\\"', "example.org")
@example("a\\", "example.org")
def test_what_is_printed_parses_to_the_same(local_part: str, domain: str) -> None:
    try:
        mailbox = make_mailbox(local_part, domain)
    except AddressError:
        return
    assert mailbox.local_part == local_part
    assert parse_mailbox(str(mailbox), smtputf8=True) == mailbox
    assert parse_forward_path(f"<{mailbox}> X=1", smtputf8=True) == (mailbox, "X=1")
    assert not set(str(mailbox)) & set("\r\n\t\0")


@given(_domains, st.text(st.sampled_from("ABCäöü例子"), min_size=1, max_size=8))
def test_parsing_a_domain_twice_changes_nothing(domain: str, label: str) -> None:
    mailbox = make_mailbox("user", f"{label.lower()}.{domain}")
    assert make_mailbox("user", mailbox.domain) == mailbox
    assert make_mailbox("user", mailbox.domain_unicode) == mailbox
