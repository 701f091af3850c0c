"""Replies: ours are one proper line; what peers say is understood, or taken as temporary."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.mail import reply as replies
from services.common.mail.reply import MAX_TEXT_OCTETS, Reply, make_reply, parse_reply


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "line"),
    [
        (550, "5.1.1", "No such user", "550 5.1.1 No such user"),
        (451, "4.3.0", "Later", "451 4.3.0 Later"),
        (250, "2.0.0", "OK", "250 2.0.0 OK"),
        (220, "", "mx.example.org ESMTP", "220 mx.example.org ESMTP"),
        (354, "", "Go ahead", "354 Go ahead"),
        (550, "5.1.1", "Kein Postfach für jörg", "550 5.1.1 Kein Postfach für jörg"),
        (554, "5.999.999", "x" * MAX_TEXT_OCTETS, "554 5.999.999 " + "x" * MAX_TEXT_OCTETS),
    ],
)
def test_lines(code: int, enhanced: str, text: str, line: str) -> None:
    reply = Reply(code, enhanced, text)
    assert reply.line() == str(reply) == line
    assert len(line.encode()) + 2 <= 512


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (550, "4.1.1", "classes disagree"),
        (250, "5.0.0", "classes disagree"),
        (451, "", "no enhanced code"),
        (550, "", "no enhanced code"),
        (354, "3.0.0", "no such class"),
        (354, "2.0.0", "classes disagree"),
        (550, "5.1", "too short"),
        (550, "5.1.1.1", "too long"),
        (550, "5.01.1", "leading zero"),
        (550, "5.1.1000", "four digits"),
        (550, "5.1.1 ", "space"),
        (550, "5.1.1\n", "line end"),
        (550, "٥.1.1", "digit of another script"),
        (150, "", "no such class"),
        (600, "", "no such class"),
        (55, "", "no such class"),
        (550, "5.1.1", ""),
        (550, "5.1.1", "two\r\nlines"),
        (550, "5.1.1", "line\n"),
        (550, "5.1.1", "nul\x00"),
        (550, "5.1.1", "tab\t"),
        (550, "5.1.1", "escape\x1b[31m"),
        (550, "5.1.1", "separator\u2028"),
        (550, "5.1.1", "override\u202e"),
        (550, "5.1.1", "surrogate\ud800"),
        (550, "5.1.1", "x" * (MAX_TEXT_OCTETS + 1)),
        (550, "5.1.1", "ö" * (MAX_TEXT_OCTETS // 2 + 1)),
    ],
)
def test_refuses_what_is_no_reply(code: int, enhanced: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"code|text"):
        Reply(code, enhanced, text)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (200, "is_success"), (250, "is_success"), (299, "is_success"),
        (300, "is_intermediate"), (354, "is_intermediate"), (399, "is_intermediate"),
        (400, "is_transient"), (421, "is_transient"), (499, "is_transient"),
        (500, "is_permanent"), (554, "is_permanent"), (599, "is_permanent"),
    ],
)  # fmt: skip
def test_kinds(code: int, kind: str) -> None:
    reply = make_reply(code, "" if code < 400 else f"{code // 100}.0.0", "text")
    kinds = ("is_success", "is_intermediate", "is_transient", "is_permanent")
    assert [name for name in kinds if getattr(reply, name)] == [kind]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("  fine ", "fine"),
        ("two\r\nlines", "two  lines"),
        ("250 2.0.0 OK\r\n550 no", "250 2.0.0 OK  550 no"),
        ("\x00\x1b", "??"),
        ("", "(no text)"),
        ("\r\n", "(no text)"),
        ("x" * 600, "x" * (MAX_TEXT_OCTETS - 3) + "..."),
    ],
)
def test_text_from_outside_is_made_fit(text: str, made: str) -> None:
    assert make_reply(550, "5.1.1", text).text == made


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"250 2.0.0 OK\r\n"], "250 2.0.0 OK"),
        ([b"250 2.0.0 OK"], "250 2.0.0 OK"),
        ([b"250 OK\r\n"], "250 2.0.0 OK"),
        ([b"250\r\n"], "250 2.0.0 (no text)"),
        ([b"250 \r\n"], "250 2.0.0 (no text)"),
        ([b"250 2.1.5\r\n"], "250 2.1.5 (no text)"),
        ([b"354 Go ahead\r\n"], "354 Go ahead"),
        ([b"354 2.0.0 Go ahead\r\n"], "354 2.0.0 Go ahead"),
        ([b"421 Bye\r\n"], "421 4.0.0 Bye"),
        ([b"550 5.1.1 No such user\n"], "550 5.1.1 No such user"),
        ([b"550-5.1.1 No such\r\n", b"550 5.1.1 user\r\n"], "550 5.1.1 No such user"),
        ([b"550-No such\r\n", b"550 5.1.1 user\r\n"], "550 5.1.1 No such user"),
        ([b"550-5.1.1 No\r\n", b"babble\r\n", b"550 user\r\n"], "550 5.1.1 No babble user"),
        ([b"550-first\r\n", b"554 last\r\n"], "554 5.0.0 first last"),
        ([b"550 4.1.1 Classes disagree\r\n"], "550 5.0.0 4.1.1 Classes disagree"),
        ([b"450 5.1.1 Classes disagree\r\n"], "450 4.0.0 5.1.1 Classes disagree"),
        ([b"550 5.01.001 Zeros\r\n"], "550 5.1.1 Zeros"),
        ([b"550 5.1.1234 No code\r\n"], "550 5.0.0 5.1.1234 No code"),
        ([b"550 5.1.1: colon\r\n"], "550 5.0.0 5.1.1: colon"),
        ([b"550 a\x00b\x1b[31mc\td\r\n"], "550 5.0.0 a?b?[31mc d"),
        ([b"550 na\xc3\xafve \xff\r\n"], "550 5.0.0 naïve \\xff"),
        ([b"550 carriage\rreturn\r\n"], "550 5.0.0 carriage return"),
        ([b"550 5.1.1 one\r\n250 2.0.0 two\r\n"], "550 5.1.1 one  250 2.0.0 two"),
    ],
)  # fmt: skip
def test_understands_peers(lines: list[bytes], expected: str) -> None:
    assert str(parse_reply(lines)) == expected


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="nothing"),
        pytest.param([b""], id="empty line"),
        pytest.param([b"\r\n"], id="line end"),
        pytest.param([b"HTTP/1.1 400 Bad Request\r\n"], id="http"),
        pytest.param([b"\x15\x03\x01\x00\x02\x02"], id="tls"),
        pytest.param([b"25 OK\r\n"], id="two digits"),
        pytest.param([b"2500 OK\r\n"], id="four digits"),
        pytest.param([b"150 OK\r\n"], id="class 1"),
        pytest.param([b"650 OK\r\n"], id="class 6"),
        pytest.param([b"550OK\r\n"], id="no space"),
        pytest.param([b"250-more\r\n"], id="no last line"),
        pytest.param([b"550-more\r\n", b"babble\r\n"], id="babble at the end"),
        pytest.param([b"250-yes\r\n", b"550 no\r\n"], id="classes differ, last is permanent"),
        pytest.param([b"550-no\r\n", b"250 yes\r\n"], id="classes differ, last is success"),
        pytest.param([b"250-x\r\n"] * 100_000 + [b"250 x\r\n"], id="endless"),
        pytest.param(["٢٥٠ OK".encode()], id="digits of another script"),
    ],
)
def test_what_makes_no_sense_is_temporary(lines: list[bytes]) -> None:
    reply = parse_reply(lines)
    assert (reply.code, reply.enhanced) == (451, "4.5.0")
    assert reply.text.startswith("The peer's reply makes no sense: ")


def test_a_long_reply_is_cut() -> None:
    reply = parse_reply([b"550-" + b"x" * 10_000_000] * 3 + [b"550 end"])
    assert reply.code == 550
    assert len(reply.line().encode()) <= 510


_lines = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(
            lambda code, separator, enhanced, text: code + separator + enhanced + text,
            st.sampled_from([b"250", b"354", b"421", b"550", b"999"]),
            st.sampled_from([b" ", b"-", b""]),
            st.sampled_from([b"", b"5.1.1 ", b"2.0.0 ", b"4.999.999", b"5.1.", b"4.0.0 4.0.0 "]),
            st.binary(max_size=600),
        ),
    ),
    max_size=6,
)


@given(_lines)
@example([b"354 2.0.0"])
def test_parsing_never_fails(lines: list[bytes]) -> None:
    reply = parse_reply(lines)
    assert len(reply.line().encode()) <= 510
    assert parse_reply([reply.line().encode()]).code == reply.code


@given(st.sampled_from([250, 450, 550]), st.integers(0, 999), st.integers(0, 999), st.text())
def test_a_reply_sent_is_read_as_the_same(code: int, subject: int, detail: int, text: str) -> None:
    reply = make_reply(code, f"{code // 100}.{subject}.{detail}", text)
    assert not set(str(reply)) & set("\r\n\0")
    assert parse_reply([f"{reply}\r\n".encode()]) == reply


def test_no_fault_of_ours_is_permanent() -> None:
    ours = [
        replies.INTERNAL_ERROR, replies.STORE_UNAVAILABLE, replies.STORE_FULL,
        replies.POLICY_UNAVAILABLE, replies.SHUTTING_DOWN, replies.TOO_MANY_CONNECTIONS,
        replies.TOO_MANY_RECIPIENTS, replies.IDLE_TIMEOUT,
    ]  # fmt: skip
    assert all(reply.is_transient for reply in ours)
