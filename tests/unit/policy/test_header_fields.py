"""The fields in front of a mail: what they say, and that nobody can add to them."""

import re

import pytest

from services.common.mail.reply import OK, Reply
from services.policy.action import Action
from services.policy.checks.check import Evidence, Standing
from services.policy.dkim.signature import Label
from services.policy.dkim.verification import SignatureResult
from services.policy.header_fields import header_fields
from services.policy.subject import Mail
from services.policy.verdict import Result, Verdict, decide
from tests.support.subjects import mail

NO = Reply(550, "5.7.1", "No")


def result(check: str, word: str, action: Action = Action.SPAM, *, objects: bool = False) -> Result:
    standing = Standing.OBJECTS if objects else Standing.CLEAR
    facts = (Evidence("spf.mechanism", "ip4:192.0.2.1"),) if check == "spf_mismatch" else ()
    return Result(check, word, standing, action, NO, "example.org permits 192.0.2.1.", facts)


def fields(verdict: Verdict, judged: Mail, message_id: str = "abc-1") -> dict[str, str]:
    made = header_fields(verdict, judged, hostname="mail.example.test", message_id=message_id)
    return {name: re.sub(r"\r\n(?=[ \t])", "", value.decode()) for name, value in made}


PLAIN = mail("From: ann@example.org\n\nhello\n")


def test_a_mail_that_is_fine() -> None:
    results = [result("helo_mismatch", "pass"), result("spf_mismatch", "pass")]
    results.append(result("dkim_missing", "none", Action.ACCEPT, objects=True))
    assert fields(decide(results), PLAIN) == {
        "Authentication-Results": (
            "mail.example.test; spf=pass smtp.mailfrom=example.org; dkim=none"
        ),
        "Received-SPF": (
            "pass (mail.example.test: example.org permits 192.0.2.1.) client-ip=192.0.2.1;"
            ' envelope-from="ann@example.org"; helo=mx.example.org; receiver=mail.example.test;'
            ' identity=mailfrom; mechanism="ip4:192.0.2.1"'
        ),
        "X-Spam-Status": "No, tests=dkim_missing",
        "X-Gatepost-Verdict": (
            "accept; id=abc-1; checks=helo_mismatch=pass,spf_mismatch=pass,dkim_missing=none"
        ),
    }


def test_a_mail_that_is_marked() -> None:
    results = [result("helo_mismatch", "fail", objects=True), result("spf_mismatch", "pass")]
    found = fields(decide(results), PLAIN)
    assert found["X-Spam-Flag"] == "YES"
    assert found["X-Spam-Status"] == "Yes, tests=helo_mismatch"
    assert found["X-Gatepost-Verdict"].startswith("spam; id=abc-1; decisive=helo_mismatch;")


def test_the_null_sender_is_named_by_its_helo() -> None:
    null = mail("From: ann@example.org\n\nhello\n", sender="")
    found = fields(decide([result("spf_mismatch", "pass")]), null)
    assert "spf=pass smtp.helo=mx.example.org" in found["Authentication-Results"]
    assert "identity=helo" in found["Received-SPF"]
    assert "envelope-from" not in found["Received-SPF"]


def test_each_signature_has_its_entry() -> None:
    signed = mail("From: ann@example.org\n\nhello\n")
    signed.signatures = (
        SignatureResult(Label("example.org", "sel", "rsa-sha256", "abcdefgh"), "pass", bits=2048),
        SignatureResult(Label("list.example", "x"), "fail", "the body was changed", bits=1024),
    )
    found = fields(decide([]), signed)["Authentication-Results"]
    assert found == (
        "mail.example.test; dkim=pass (2048-bit key) header.d=example.org header.s=sel"
        ' header.b=abcdefgh; dkim=fail (1024-bit key) reason="the body was changed"'
        " header.d=list.example header.s=x"
    )


def test_mail_that_was_not_judged_says_so() -> None:
    found = fields(decide([]), PLAIN)
    assert found["Authentication-Results"] == "mail.example.test; none"
    assert "Received-SPF" not in found


def test_a_submission_betrays_nothing() -> None:
    submitted = mail("From: ann@example.org\n\nhello\n", account="ann@example.org")
    assert fields(decide([]), submitted) == {}


@pytest.mark.parametrize(
    "hostile",
    ["a\r\nX-Evil: yes", 'a"; evil=1; "', "a)(b\\", "ä" * 50, "a\x00b", "x" * 4000, "a;b=c", "\t"],
)
def test_hostile_values_stay_in_their_place(hostile: str) -> None:
    judged = mail("From: ann@example.org\n\nhello\n", f"{hostile}@{hostile}", helo=hostile)
    spf = Result("spf_mismatch", "none", Standing.CLEAR, Action.SPAM, NO, f"{hostile} said so.")
    made = header_fields(decide([spf]), judged, hostname="mail.example.test", message_id="a-1")
    for name, value in made:
        lines = (f"{name}: ".encode() + value).split(b"\r\n")
        assert all(line[:1] in (b" ", b"\t") for line in lines[1:])
        assert all(len(line) <= 998 for line in lines)
        assert all(0x20 <= octet < 0x7F or octet == 9 for line in lines for octet in line)
        assert value.count(b'"') % 2 == 0
        assert value.count(b"(") == value.count(b")")


def test_a_refused_mail_still_has_its_reply() -> None:
    assert decide([result("a", "fail", Action.REFUSE, objects=True)], accepted=OK).reply == NO
