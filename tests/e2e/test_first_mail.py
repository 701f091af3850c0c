"""Real mail from real clients, swaks, smtplib and smtp-source, in every TLS mode."""

import smtplib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.conftest import PASSWORD
from tests.e2e.samples import SAMPLES, below_trace_fields
from tests.support.installation import Installation
from tests.support.programs import program

SENDER = "alice@example.org"
RECIPIENT = "you@example.test"
HELO = "mail.example.org"

Send = Callable[[Installation, Path, bytes], None]


def swaks(installation: Installation, folder: Path, mail: bytes, port: str, *more: str) -> None:
    path = folder / "mail.eml"
    path.write_bytes(mail.removesuffix(b"\r\n"))  # swaks ends the last line by itself
    done = subprocess.run(
        [
            program("swaks"),
            *("--server", f"127.0.0.1:{installation.ports[port]}", "--helo", HELO),
            *("--from", SENDER, "--to", RECIPIENT, "--data", f"@{path}", *more),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def swaks_plain(installation: Installation, folder: Path, mail: bytes) -> None:
    swaks(installation, folder, mail, "mx")


def swaks_starttls(installation: Installation, folder: Path, mail: bytes) -> None:
    swaks(installation, folder, mail, "mx", "--tls")


def swaks_implicit(installation: Installation, folder: Path, mail: bytes) -> None:
    login = ("--auth", "PLAIN", "--auth-user", RECIPIENT, "--auth-password", PASSWORD)
    more = ("--from", RECIPIENT, "--tls-on-connect", *login)
    swaks(installation, folder, mail, "submissions", *more)


def smtplib_plain(installation: Installation, folder: Path, mail: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["mx"], HELO, timeout=30) as client:
        assert client.sendmail(SENDER, [RECIPIENT], mail, ["BODY=8BITMIME"]) == {}


def smtplib_starttls(installation: Installation, folder: Path, mail: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["submission"], HELO, timeout=30) as client:
        client.starttls(context=_trusting(installation))
        client.login(RECIPIENT, PASSWORD)
        assert client.sendmail(RECIPIENT, [RECIPIENT], mail, ["BODY=8BITMIME"]) == {}


def smtplib_implicit(installation: Installation, folder: Path, mail: bytes) -> None:
    port = installation.ports["submissions"]
    context = _trusting(installation)
    with smtplib.SMTP_SSL("127.0.0.1", port, HELO, timeout=30, context=context) as client:
        client.login(RECIPIENT, PASSWORD)
        assert client.sendmail(RECIPIENT, [RECIPIENT], mail, ["BODY=8BITMIME"]) == {}


def _trusting(installation: Installation) -> ssl.SSLContext:
    """Trust the certificate that `gatepost up` made, and no other."""
    context = ssl.create_default_context(cafile=str(installation.data / "tls" / "tls.crt"))
    context.check_hostname = False  # it is for mail.example.test, we came to 127.0.0.1
    return context


WAYS: dict[str, tuple[Send, str]] = {
    "swaks": (swaks_plain, SENDER),
    "swaks STARTTLS": (swaks_starttls, SENDER),
    "swaks TLS": (swaks_implicit, RECIPIENT),
    "smtplib": (smtplib_plain, SENDER),
    "smtplib STARTTLS": (smtplib_starttls, RECIPIENT),
    "smtplib TLS": (smtplib_implicit, RECIPIENT),
}
"""How a mail is sent, and whose address may stand in From there."""


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("way", WAYS)
def test_a_mail_arrives_as_it_was_sent(
    installation: Installation, folder: Path, way: str, sample: str
) -> None:
    marker = uuid4().hex
    send, author = WAYS[way]
    mail = SAMPLES[sample](marker, author)
    before = len(installation.mail(RECIPIENT))
    send(installation, folder, mail)
    arrived = installation.wait_mail(RECIPIENT, before + 1)[-1]
    assert below_trace_fields(arrived, mail), arrived[:2000]


def test_smtp_source_sends_many(installation: Installation) -> None:
    """100 mails in 10 sessions, half of them over one connection each."""
    before = len(installation.mail(RECIPIENT, folder=".Junk")) + len(installation.mail(RECIPIENT))
    for options in (["-d"], []):
        done = subprocess.run(
            [
                program("smtp-source"),
                *("-s", "10", "-m", "50", "-l", "2000", *options),
                *("-M", HELO, "-f", SENDER, "-t", RECIPIENT),
                f"127.0.0.1:{installation.ports['mx']}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    installation.wait_mail(RECIPIENT, before + 100, seconds=60)


def test_what_policy_dislikes_is_filed_under_junk(installation: Installation, folder: Path) -> None:
    mail = SAMPLES["1 KB"](uuid4().hex, SENDER)
    before = len(installation.mail(RECIPIENT, folder=".Junk"))
    swaks(installation, folder, mail, "mx", "--helo", "wrong.example.org")
    junk = installation.wait_mail(RECIPIENT, before + 1, folder=".Junk")[-1]
    assert b"\nX-Spam-Flag: YES" in junk.replace(b"\r\n", b"\n")
    assert below_trace_fields(junk, mail)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--to", "nobody@example.test"], "550 5.1.1"),
        (["--to", "someone@example.net"], "550 5.7.1"),
        (["--to", "@example.test"], "501 5.1.3"),
    ],
    ids=["unknown recipient", "relay for strangers", "no address"],
)
def test_what_is_not_for_us_is_refused(
    installation: Installation, options: list[str], answer: str
) -> None:
    done = subprocess.run(
        [
            program("swaks"),
            *("--server", f"127.0.0.1:{installation.ports['mx']}", "--helo", HELO),
            *("--from", SENDER, *options),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"<** {answer}" in done.stdout, done.stdout


def test_a_client_must_log_in_to_submit(installation: Installation) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["submission"], timeout=30) as client:
        client.starttls(context=_trusting(installation))
        client.ehlo()
        code, text = client.mail(RECIPIENT)
        assert (code, text[:5]) == (530, b"5.7.0")
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login(RECIPIENT, "wrong password")
        assert caught.value.smtp_code == 535
