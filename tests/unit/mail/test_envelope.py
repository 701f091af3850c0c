"""The parameters of MAIL and RCPT, and the envelope that they become part of."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.mail.address import POSTMASTER, Mailbox
from services.common.mail.envelope import (
    Body,
    Envelope,
    Extension,
    MailParameters,
    Notify,
    ParameterError,
    Recipient,
    RecipientParameters,
    Ret,
    XtextError,
    decode_xtext,
    encode_xtext,
    mail_options,
    parse_mail_parameters,
    parse_recipient_parameters,
    recipient_options,
)
from services.common.mail.reply import BAD_ARGUMENTS, UNKNOWN_PARAMETER, Reply

Parsed = TypeVar("Parsed", MailParameters, RecipientParameters)
USER = Mailbox("user", "example.org")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MailParameters()),
        ("SIZE=0", MailParameters(size=0)),
        ("size=12345678901234567890", MailParameters(size=12345678901234567890)),
        ("BODY=7bit", MailParameters(body=Body.SEVEN_BIT)),
        ("BODY=8BITMIME", MailParameters(body=Body.EIGHT_BIT_MIME)),
        ("SMTPUTF8", MailParameters(smtputf8=True)),
        ("RET=full", MailParameters(ret=Ret.FULL)),
        ("Ret=HDRS", MailParameters(ret=Ret.HEADERS)),
        ("ENVID=QQ314159+3DaB", MailParameters(envid="QQ314159+3DaB")),
        ("ENVID=" + "x" * 100, MailParameters(envid="x" * 100)),
        ("AUTH=<>", MailParameters(auth="<>")),
        ("AUTH=user+40example.org", MailParameters(auth="user+40example.org")),
        (
            "SIZE=1  BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e AUTH=<> ",
            MailParameters(1, Body.EIGHT_BIT_MIME, True, Ret.HEADERS, "e", "<>"),
        ),
    ],
)
def test_mail_parameters(text: str, expected: MailParameters) -> None:
    assert parse_mail_parameters(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "SIZE", "SIZE=", "SIZE=-1", "SIZE=1e3", "SIZE=0x10", "SIZE=1 SIZE=1", "SIZE=١",
        "SIZE=123456789012345678901", "SIZE=1\t", "SIZE=1\x00",
        "BODY", "BODY=", "BODY=BINARYMIME", "BODY=8BIT", "BODY=8BITMIME=",
        "SMTPUTF8=", "SMTPUTF8=1", "SMTPUTF8 SMTPUTF8", "SMTPUTF8 smtputf8",
        "RET", "RET=BODY", "RET=FULL,HDRS", "RET=FULL ret=HDRS",
        "ENVID", "ENVID=", "ENVID=+", "ENVID=+4", "ENVID=+4g", "ENVID=+3d", "ENVID=a=b",
        "ENVID=+0D+0AX-Injected:+20yes", "ENVID=+00", "ENVID=+7F", "ENVID=+E4", "ENVID=ä",
        "ENVID=a\tb", "ENVID=a\r\nb", "ENVID=a\n", "ENVID=" + "x" * 101,
        "AUTH", "AUTH=", "AUTH=+0A", "AUTH=" + "x" * 501,
        "=1", "=", "-X=1", "+", "ſIZE=1", "SIZE=1 =",
    ],
)  # fmt: skip
def test_bad_mail_parameters(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_mail_parameters(text)
    assert str(caught.value.reply).startswith("501 5.5.4 ")


@pytest.mark.parametrize(
    "text",
    [
        "REQUIRETLS", "FOO", "FOO=BAR", "MT-PRIORITY=3", "HOLDFOR=60", "NOTIFY=NEVER", "BY=1;R",
        "X" * 1000, "X-A=\x00",
    ],
)  # fmt: skip
def test_unknown_parameters(text: str) -> None:
    for parse, argument in (
        (parse_mail_parameters, text),
        (parse_mail_parameters, f"SIZE=1 {text}"),
        (parse_recipient_parameters, text.replace("NOTIFY", "RET")),
    ):
        with pytest.raises(ParameterError) as caught:
            parse(argument)
        assert str(caught.value.reply).startswith("555 5.5.4 ")


@pytest.mark.parametrize(
    ("text", "extension"),
    [
        ("SIZE=1", Extension.SIZE),
        ("BODY=7BIT", Extension.EIGHT_BIT_MIME),
        ("SMTPUTF8", Extension.SMTPUTF8),
        ("RET=FULL", Extension.DSN),
        ("ENVID=x", Extension.DSN),
        ("AUTH=<>", Extension.AUTH),
    ],
)
def test_what_was_not_offered_is_unknown(text: str, extension: Extension) -> None:
    # EHLO keywords are plain strings in the hands of the callers.
    assert parse_mail_parameters(text, offered={str(extension)}) != MailParameters()
    with pytest.raises(ParameterError) as caught:
        parse_mail_parameters(text, offered={str(each) for each in Extension} - {str(extension)})
    assert caught.value.reply.code == 555


def test_dsn_that_was_not_offered_is_unknown_for_recipients() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_recipient_parameters("NOTIFY=NEVER", offered={"SIZE"})
    assert caught.value.reply.code == 555


@pytest.mark.parametrize(
    ("text", "notify", "orcpt", "original"),
    [
        ("", set(), None, None),
        ("NOTIFY=NEVER", {Notify.NEVER}, None, None),
        ("notify=success,Failure", {Notify.SUCCESS, Notify.FAILURE}, None, None),
        ("NOTIFY=DELAY,DELAY", {Notify.DELAY}, None, None),
        (
            "ORCPT=rfc822;Bob+2Bx@Example.ORG NOTIFY=DELAY",
            {Notify.DELAY}, "rfc822;Bob+2Bx@Example.ORG", "rfc822;Bob+x@Example.ORG",
        ),
        ("ORCPT=utf-8;j+5Cx{F6}rg", set(), "utf-8;j+5Cx{F6}rg", r"utf-8;j\x{F6}rg"),
        ("ORCPT=UTF-8;jörg+40b", set(), "UTF-8;jörg+40b", "UTF-8;jörg@b"),
        ("ORCPT=rfc822;" + "x" * 493, set(), "rfc822;" + "x" * 493, "rfc822;" + "x" * 493),
    ],
)  # fmt: skip
def test_recipient_parameters(
    text: str, notify: set[Notify], orcpt: str | None, original: str | None
) -> None:
    parameters = parse_recipient_parameters(text, smtputf8=True)
    assert parameters == RecipientParameters(frozenset(notify), orcpt)
    assert parameters.original_recipient == original


@pytest.mark.parametrize(
    "text",
    [
        "NOTIFY", "NOTIFY=", "NOTIFY=ALWAYS", "NOTIFY=NEVER,SUCCESS", "NOTIFY=SUCCESS,",
        "NOTIFY=,", "NOTIFY=SUCCESS;FAILURE", "NOTIFY=DELAY NOTIFY=DELAY",
        "ORCPT", "ORCPT=", "ORCPT=rfc822", "ORCPT=rfc822;", "ORCPT=;a@b", "ORCPT=X400;/S=",
        "ORCPT=a@b.example", "ORCPT=rfc822;a=b@c", "ORCPT=rfc822;a+b@c", "ORCPT=rfc822;a+3db",
        "ORCPT=rfc822;a+0D+0AX:y", "ORCPT=rfc822;a+0Ab", "ORCPT=rfc822;ä@b", "ORCPT=utf-8;ä@b",
        "ORCPT=rfc822;a\tb", "ORCPT=rf\x00c;a", "ORCPT=rfc822;" + "x" * 494,
        "ORCPT=rfc822;a ORCPT=rfc822;a",
    ],
)  # fmt: skip
def test_bad_recipient_parameters(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_recipient_parameters(text)
    assert str(caught.value.reply).startswith("501 5.5.4 ")


@pytest.mark.parametrize("address", ["a\u202eb", "a\u2028b", "a\x85b", "a\ud800b", "ä+0A"])
def test_bare_utf8_addresses_are_printable(address: str) -> None:
    with pytest.raises(ParameterError):
        parse_recipient_parameters(f"ORCPT=utf-8;{address}", smtputf8=True)


_WORDS = (
    "SIZE BODY RET ENVID AUTH NOTIFY ORCPT SMTPUTF8 = ; + +4 +40 rfc822; utf-8; , 1 =FULL =NEVER"
)
_texts = st.lists(
    st.one_of(st.sampled_from([" ", *_WORDS.split()]), st.text(max_size=3)), max_size=10
).map("".join)


def parsed_or_refused(parse: Callable[[str], Parsed], text: str) -> Parsed | Reply:
    try:
        return parse(text)
    except ParameterError as error:
        return error.reply


@given(_texts)
@example("ENVID=\ud800")
def test_any_mail_parameters_are_parsed_or_refused(text: str) -> None:
    parsed = parsed_or_refused(parse_mail_parameters, text)
    if isinstance(parsed, Reply):
        assert parsed in (BAD_ARGUMENTS, UNKNOWN_PARAMETER)
        return
    again = parse_mail_parameters(" ".join(mail_options(parsed, offered=Extension)))
    assert again == replace(parsed, auth=None)
    assert parsed.envid is None or decode_xtext(parsed.envid).isprintable()


@given(_texts)
@example("ORCPT=utf-8;\ud800")
def test_any_recipient_parameters_are_parsed_or_refused(text: str) -> None:
    parsed = parsed_or_refused(partial(parse_recipient_parameters, smtputf8=True), text)
    if isinstance(parsed, Reply):
        assert parsed in (BAD_ARGUMENTS, UNKNOWN_PARAMETER)
        return
    options = " ".join(recipient_options(parsed, offered=Extension))
    assert parse_recipient_parameters(options, smtputf8=True) == parsed
    assert not set(parsed.original_recipient or "") & set("\r\n\t\0")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
def test_xtext_there_and_back(text: str) -> None:
    encoded = encode_xtext(text)
    assert not set(encoded) & set(" =")
    assert decode_xtext(encoded) == text


@pytest.mark.parametrize("text", ["", "ä", "a\nb", "a\x00", "\x7f"])
def test_what_xtext_cannot_hold(text: str) -> None:
    with pytest.raises(XtextError):
        encode_xtext(text)


@pytest.mark.parametrize(
    ("auth", "submitter"),
    [
        (None, None),
        ("<>", None),
        ("user@example.org", USER),
        ("user+40example.org", USER),
        ("us+65r@example.org", USER),
        ("nobody", None),
        ("not xtext", None),
    ],
)
def test_submitter(auth: str | None, submitter: Mailbox | None) -> None:
    assert MailParameters(auth=auth).submitter == submitter


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        (set(), {Notify.FAILURE, Notify.DELAY}),
        ({Notify.NEVER}, set()),
        ({Notify.SUCCESS}, {Notify.SUCCESS}),
        ({Notify.FAILURE, Notify.SUCCESS}, {Notify.FAILURE, Notify.SUCCESS}),
    ],
)
def test_which_reports_a_sender_wants(notify: set[Notify], wanted: set[Notify]) -> None:
    recipient = Recipient(USER, RecipientParameters(frozenset(notify)))
    reports = (Notify.SUCCESS, Notify.FAILURE, Notify.DELAY)
    assert {event for event in reports if recipient.wants(event)} == wanted


def test_parameters_go_on_to_peers_that_know_them() -> None:
    mail = MailParameters(7, Body.EIGHT_BIT_MIME, True, Ret.FULL, "e+20", "<>")
    assert mail_options(mail, offered=Extension) == [
        "SIZE=7", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=e+20",
    ]  # fmt: skip
    assert mail_options(mail, offered=["SIZE", "DSN"]) == ["SIZE=7", "RET=FULL", "ENVID=e+20"]
    assert mail_options(mail, offered=[]) == mail_options(MailParameters(), offered=Extension) == []
    recipient = RecipientParameters(frozenset({Notify.DELAY, Notify.SUCCESS}), "rfc822;a+20b")
    assert recipient_options(recipient, offered={"DSN"}) == [
        "NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;a+20b",
    ]  # fmt: skip
    assert recipient_options(recipient, offered={"SIZE"}) == []
    assert recipient_options(RecipientParameters(), offered={"DSN"}) == []


@pytest.mark.parametrize(
    ("sender", "recipients", "needed"),
    [
        (None, [USER], False),
        (USER, [POSTMASTER], False),
        (Mailbox("jörg", "example.org"), [USER], True),
        (None, [USER, Mailbox("jörg", "example.org")], True),
        (Mailbox("user", "xn--bcher-kva.example"), [USER], False),
    ],
)
def test_when_the_addresses_need_smtputf8(
    sender: Mailbox | None, recipients: list[Mailbox], needed: bool
) -> None:
    assert Envelope(sender, tuple(map(Recipient, recipients))).needs_smtputf8 is needed
