"""DKIM: the examples of RFC 6376, in §3.4.5 and in its Appendices A and C."""

import pytest

from services.common.mail.message import parse_header
from services.policy.dkim.syntax import canonical_fields
from services.policy.dkim.verification import verify_signatures
from tests.support.resolver import FakeResolver
from tests.support.subjects import mail

NOW = 1_700_000_000

# Appendix A.2. It verifies with folds of six spaces, and with one space after "game.".
SIGNED = """\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
"""
# Appendix C, in the strings of its zone file
KEY = (
    '"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQ"'
    ' "KBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt"'
    ' "IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v"'
    ' "/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi"'
    ' "tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"'
)
LATER_HOP = "Received: from mout23.football.example.com (192.168.1.1)\n  by shopping.example.net;\n"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (SIGNED, "pass"),
        # Appendix A.3: another Received field is above the one that was signed.
        (LATER_HOP + SIGNED, "pass"),
        # Simple canonicalization sees each of these; relaxed would see neither of the last two.
        (SIGNED.replace("dinner", "supper"), "fail"),
        (SIGNED.replace("Subject: Is", "Subject:  Is"), "fail"),
        (SIGNED.replace("game. Are", "game.  Are"), "fail"),
    ],
    ids=["signed", "relayed", "subject", "header", "body"],
)
async def test_the_mail_of_appendix_a(text: str, result: str) -> None:
    resolver = FakeResolver({("brisbane._domainkey.example.com", "TXT"): [KEY]})
    [found] = await verify_signatures(mail(text), resolver, now=NOW)
    assert (found.result, found.bits) == (result, 1024)


@pytest.mark.parametrize(
    ("relaxed", "canonical"),
    [
        (True, [b"a:X\r\n", b"b:Y Z\r\n"]),
        (False, [b"A: X\r\n", b"B : Y\t\r\n\tZ  \r\n"]),
    ],
)
def test_the_header_of_section_3_4_5(relaxed: bool, canonical: list[bytes]) -> None:
    header = parse_header(b"A: X\r\nB : Y\t\r\n\tZ  \r\n")
    assert [canonical_fields([field], relaxed=relaxed) for field in header.fields] == canonical


@pytest.mark.parametrize(
    ("field", "canonical"),
    [
        (b"A :  X \t Y  \r\n", b"a:X Y\r\n"),
        (b"A:\r\n X\r\n\tY\r\n", b"a:X Y\r\n"),
        (b"A: X\n Y\n", b"a:X Y\r\n"),
        (b"A: X", b"a:X\r\n"),
        (b"A:\r\n", b"a:\r\n"),
        # No white space to the RFC.
        (b"A: \x0bX\x0c \r\n", b"a:\x0bX\x0c\r\n"),
    ],
    ids=["blanks", "folds", "bare", "no-end", "empty", "vertical"],
)
def test_relaxed_fields(field: bytes, canonical: bytes) -> None:
    header = parse_header(field)
    assert canonical_fields(header.fields, relaxed=True) == canonical
