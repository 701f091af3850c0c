"""Whose mail a header says it is: From in all the ways that people and attackers write it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.mail.author import (
    MAX_FROM_ADDRESSES,
    MAX_FROM_OCTETS,
    Authors,
    FromProblem,
    find_authors,
)
from services.common.mail.message import from_addresses, parse_header


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("user@example.org", ["user@example.org"]),
        ("User@EXAMPLE.org", ["User@example.org"]),
        ("<user@example.org>", ["user@example.org"]),
        ("User <user@example.org>", ["user@example.org"]),
        ("User Q. Name <user@example.org>", ["user@example.org"]),
        ('"Name, User" <user@example.org>', ["user@example.org"]),
        (r'"a \" b <x@y.example>" <user@example.org>', ["user@example.org"]),
        ("=?utf-8?q?User?= <user@example.org>", ["user@example.org"]),
        ("=?utf-8?q?=3Cx=40y.example=3E?= <user@example.org>", ["user@example.org"]),
        ("Jörg <user@example.org>", ["user@example.org"]),
        ("jörg@bücher.example", ["jörg@xn--bcher-kva.example"]),
        ("user@example.org (User)", ["user@example.org"]),
        ("(one (two) \\) three) user@example.org", ["user@example.org"]),
        ("user (a) @ (b) example (c) . (d) org", ["user@example.org"]),
        ("(x@y.example) User <user@example.org> (z@y.example)", ["user@example.org"]),
        ("us . er @ example.org", ["us.er@example.org"]),
        ('"a b"@example.org', ['"a b"@example.org']),
        ('"a"."b"@example.org', ["a.b@example.org"]),
        ("user@[192.0.2.1]", ["user@[192.0.2.1]"]),
        ("<@relay.example,@other.example:user@example.org>", ["user@example.org"]),
        ("user@example.org <User@Example.org>", ["User@example.org"]),
        ('"x@y.example" <user@example.org>', ["user@example.org"]),
        ("a@b.example, C <c@d.example>", ["a@b.example", "c@d.example"]),
        ("a@b.example,, ,c@d.example,", ["a@b.example", "c@d.example"]),
        ("Group: a@b.example, C <c@d.example>;", ["a@b.example", "c@d.example"]),
        ("One: a@b.example;, Two: c@d.example;", ["a@b.example", "c@d.example"]),
        ("a@b.example, Group: c@d.example;", ["a@b.example", "c@d.example"]),
    ],
)
def test_addresses(value: str, addresses: list[str]) -> None:
    authors = find_authors([value.encode()])
    assert list(map(str, authors.addresses)) == addresses
    assert authors.problem is None
    assert authors.only == (authors.addresses[0] if len(addresses) == 1 else None)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", FromProblem.EMPTY),
        (" ,, ", FromProblem.EMPTY),
        ("(user@example.org)", FromProblem.EMPTY),
        ("undisclosed-recipients:;", FromProblem.EMPTY),
        ("User", FromProblem.MALFORMED),
        ("user@", FromProblem.MALFORMED),
        ("@example.org", FromProblem.MALFORMED),
        ("<>", FromProblem.MALFORMED),
        ("User <>", FromProblem.MALFORMED),
        ("=?utf-8?q?user=40example.org?=", FromProblem.MALFORMED),
        ("<=?utf-8?q?user=40example.org?=>", FromProblem.MALFORMED),
        ("x@y.example <user@example.org>", FromProblem.MALFORMED),
        ("x@y.example@example.org", FromProblem.MALFORMED),
        ("user@example.org x@y.example", FromProblem.MALFORMED),
        ("user@example.org x", FromProblem.MALFORMED),
        ("<user@example.org> x", FromProblem.MALFORMED),
        ("<x@y.example> <user@example.org>", FromProblem.MALFORMED),
        ("<x@y.example><user@example.org>", FromProblem.MALFORMED),
        ("<<user@example.org>>", FromProblem.MALFORMED),
        ("User <user@example.org", FromProblem.MALFORMED),
        ("User user@example.org>", FromProblem.MALFORMED),
        ("User > <user@example.org>", FromProblem.MALFORMED),
        ("[User] <user@example.org>", FromProblem.MALFORMED),
        ("<user@example.org, x@y.example>", FromProblem.MALFORMED),
        ("us er@example.org", FromProblem.MALFORMED),
        ("us(x)er@example.org", FromProblem.MALFORMED),
        ("user@exam ple.org", FromProblem.MALFORMED),
        ("user@example..org", FromProblem.MALFORMED),
        (".user@example.org", FromProblem.MALFORMED),
        ('user@"example.org"', FromProblem.MALFORMED),
        ("user@[192.0.2.1].example", FromProblem.MALFORMED),
        ("user@exa_mple.org", FromProblem.MALFORMED),
        ("user＠example.org", FromProblem.MALFORMED),
        ("user@example。org", FromProblem.MALFORMED),
        ("user@example.org\x00", FromProblem.MALFORMED),
        ("us\x00er@example.org", FromProblem.MALFORMED),
        ('"us\x00er"@example.org', FromProblem.MALFORMED),
        ("user@example.org\rFrom: x@y.example", FromProblem.MALFORMED),
        ('"User <user@example.org>', FromProblem.MALFORMED),
        ("(User <user@example.org>", FromProblem.MALFORMED),
        ("User) <user@example.org>", FromProblem.MALFORMED),
        ("\\user@example.org", FromProblem.MALFORMED),
        ("Name, User <user@example.org>", FromProblem.MALFORMED),
        ("Group: user@example.org", FromProblem.MALFORMED),
        ("user@example.org;", FromProblem.MALFORMED),
        ("One: Two: user@example.org;;", FromProblem.MALFORMED),
        (": user@example.org;", FromProblem.MALFORMED),
        ("x@y.example: user@example.org;", FromProblem.MALFORMED),
        ("Group: user@example.org; x", FromProblem.MALFORMED),
        ("<@relay.example user@example.org>", FromProblem.MALFORMED),
        ("(" * MAX_FROM_OCTETS, FromProblem.MALFORMED),
        ("x" * (MAX_FROM_OCTETS + 1), FromProblem.TOO_LONG),
        ("u@e.example," * (MAX_FROM_ADDRESSES + 1), FromProblem.TOO_LONG),
    ],
)
def test_problems(value: str, problem: FromProblem) -> None:
    authors = find_authors([value.encode()])
    assert authors.problem is problem
    assert authors.only is None
    assert len(authors.addresses) <= MAX_FROM_ADDRESSES


def test_octets_that_are_no_utf8() -> None:
    assert find_authors([b"J\xf6rg <user@example.org>"]).problem is FromProblem.MALFORMED


def test_what_stood_before_a_mistake_is_known() -> None:
    authors = find_authors([b"a@b.example, c@d.example, oops"])
    assert list(map(str, authors.addresses)) == ["a@b.example", "c@d.example"]
    assert authors.problem is FromProblem.MALFORMED


@pytest.mark.parametrize(
    ("header", "addresses", "problem"),
    [
        (b"Subject: x\r\n", [], FromProblem.MISSING),
        (b"From: a@b.example\r\n", ["a@b.example"], None),
        (b"fRoM : A\r\n <a@b.example>\r\n", ["a@b.example"], None),
        (
            b"From: a@b.example\r\nfrom: c@d.example\r\n",
            ["a@b.example", "c@d.example"],
            FromProblem.REPEATED,
        ),
        (
            b"From: a@b.example\r\nnot a field\r\nFrom: c@d.example\r\n",
            ["a@b.example", "c@d.example"],
            FromProblem.REPEATED,
        ),
        (
            b"From: a@b.example\nFrom: c@d.example\r\n",
            ["a@b.example", "c@d.example"],
            FromProblem.REPEATED,
        ),
        # A second field that hides an address is worse than one that shows it
        (
            b"From: a@b.example\r\nFrom: C <c@d.example\r\n",
            ["a@b.example"],
            FromProblem.MALFORMED,
        ),
        (
            b"From: C <c@d.example\r\nFrom: a@b.example\r\n",
            ["a@b.example"],
            FromProblem.MALFORMED,
        ),
        (
            b"From: oops\r\nFrom: " + b"x" * (MAX_FROM_OCTETS + 1) + b"\r\n",
            [],
            FromProblem.TOO_LONG,
        ),
        (b"From: a@b.example\r\nFrom:\r\n", ["a@b.example"], FromProblem.REPEATED),
        (b"From: ;:\r\nFrom: <>\r\n", [], FromProblem.MALFORMED),
        (b"From:\r\nFrom: (x)\r\n", [], FromProblem.REPEATED),
        (b"X-From: a@b.example\r\n", [], FromProblem.MISSING),
        (b"From: a@b.example\r\n\r\nFrom: c@d.example\r\n", ["a@b.example"], None),
    ],
)
def test_from_of_a_header(header: bytes, addresses: list[str], problem: FromProblem | None) -> None:
    authors = from_addresses(parse_header(header))
    assert (list(map(str, authors.addresses)), authors.problem) == (addresses, problem)


_pieces = st.lists(
    st.one_of(
        st.sampled_from([*'<>@,:;.()[]"\\ ', "\t", "a", "a@b.example", "=?x?="]),
        st.text(max_size=3),
    ),
    max_size=15,
).map("".join)


@given(st.lists(st.one_of(_pieces.map(lambda text: text.encode(errors="replace")), st.binary())))
@example([b"a@xn--\xed\xa0\x80"])
def test_finding_never_fails(values: list[bytes]) -> None:
    authors = find_authors(values)
    assert isinstance(authors, Authors)
    assert bool(authors.addresses) or authors.problem
    assert authors.only is None or len(values) == 1
