"""One mail over a session with a scripted peer: of whom a reply is said."""

from collections.abc import AsyncGenerator
from ipaddress import ip_address

import pytest

from services.common.mail.envelope import MailParameters, RecipientParameters
from services.delivery.outcome import Result
from services.delivery.smtp.session import Patience, Peer, open_session
from services.delivery.smtp.transaction import Addressee, Mail, transact
from tests.support.delivery import CONTENT
from tests.support.smtp_peer import Script, SmtpPeer

UNKNOWN = "550 5.1.1 User unknown"
ANN, BOB = (Addressee(f"{name}@far.test", RecipientParameters()) for name in ("ann", "bob"))


async def blocks() -> AsyncGenerator[bytes, None]:
    yield CONTENT


@pytest.mark.parametrize("pipelining", [False, True], ids=["in turn", "pipelined"])
@pytest.mark.parametrize(
    ("lmtp", "addressees", "scripts", "of_recipient"),
    [
        (False, [ANN, BOB], {"mail": UNKNOWN}, [False, False]),
        (False, [ANN], {"mail": UNKNOWN}, [False]),
        (False, [ANN, BOB], {"rcpt": UNKNOWN}, [True, True]),
        (False, [ANN, BOB], {"data": UNKNOWN}, [False, False]),
        (False, [ANN], {"data": UNKNOWN}, [True]),
        (False, [ANN, BOB], {"dot": UNKNOWN}, [False, False]),
        (False, [ANN], {"dot": UNKNOWN}, [True]),
        (True, [ANN, BOB], {"data": UNKNOWN}, [False, False]),
        (True, [ANN, BOB], {"dot": UNKNOWN}, [True, True]),
    ],
    ids=[
        "MAIL",
        "MAIL for one",
        "RCPT",
        "DATA",
        "DATA for one",
        "dot",
        "dot for one",
        "DATA over LMTP",
        "dot over LMTP",
    ],
)
async def test_what_is_said_of_one_recipient_is_told_from_what_is_said_of_all(
    lmtp: bool,
    addressees: list[Addressee],
    scripts: dict[str, Script],
    of_recipient: list[bool],
    pipelining: bool,
) -> None:
    mail = Mail("me@example.org", MailParameters(), len(CONTENT), blocks)
    results: dict[Addressee, Result] = {}
    async with SmtpPeer(lmtp=lmtp, pipelining=pipelining) as scripted:
        scripted.script(**scripts)
        peer = Peer(name="", address=ip_address("127.0.0.1"), port=scripted.port, lmtp=lmtp)
        session = await open_session(peer, helo="mail.example.test", patience=Patience())
        await transact(session, mail, addressees, results)
        session.abort()
    assert [results[each].of_recipient for each in addressees] == of_recipient
    assert {str(result.reply) for result in results.values()} == {UNKNOWN}
