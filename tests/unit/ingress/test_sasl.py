"""PLAIN and LOGIN as exchanges of lines."""

import base64

import pytest

from services.common.mail.reply import Reply
from services.ingress.replies import AUTH_ABORTED, AUTH_MALFORMED, AUTH_NOT_BASE64, AUTH_WRONG
from services.ingress.sasl import MECHANISMS, Credentials, SaslError


def _b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


async def _exchange(mechanism: str, initial: bytes | None, *answers: bytes) -> Credentials:
    left = list(answers)

    async def ask(_: bytes) -> bytes:
        return left.pop(0)

    found = await MECHANISMS[mechanism](initial, ask)
    assert not left
    return found


GOOD = [
    ("PLAIN", _b64(b"\0you\0secret"), ()),
    ("PLAIN", _b64(b"you\0you\0secret"), ()),
    ("PLAIN", None, (_b64(b"\0you\0secret"),)),
    ("LOGIN", None, (_b64(b"you"), _b64(b"secret"))),
    ("LOGIN", _b64(b"you"), (_b64(b"secret"),)),
]


@pytest.mark.parametrize(("mechanism", "initial", "answers"), GOOD)
async def test_credentials(mechanism: str, initial: bytes | None, answers: tuple[bytes]) -> None:
    found = await _exchange(mechanism, initial, *answers)
    assert (found.username, found.password) == ("you", "secret")


async def test_passwords_may_be_any_text() -> None:
    found = await _exchange("PLAIN", _b64("\0jürgen@example.test\0pÄss wörd=*".encode()))
    assert (found.username, found.password) == ("jürgen@example.test", "pÄss wörd=*")


BAD = [
    ("PLAIN", b"=", (), AUTH_MALFORMED),
    ("PLAIN", b"*", (), AUTH_ABORTED),
    ("PLAIN", None, (b"*",), AUTH_ABORTED),
    ("PLAIN", b"AHlvdQ", (), AUTH_NOT_BASE64),
    ("PLAIN", b"AHlv dQ==", (), AUTH_NOT_BASE64),
    ("PLAIN", b"!", (), AUTH_NOT_BASE64),
    ("PLAIN", _b64(b"you\0secret"), (), AUTH_MALFORMED),
    ("PLAIN", _b64(b"\0you\0secret\0more"), (), AUTH_MALFORMED),
    ("PLAIN", _b64(b"\0you\0\xff"), (), AUTH_MALFORMED),
    ("PLAIN", _b64(b"other\0you\0secret"), (), AUTH_WRONG),
    ("PLAIN", _b64(b"\0you\0"), (), AUTH_WRONG),
    ("PLAIN", _b64(b"\0\0secret"), (), AUTH_WRONG),
    ("LOGIN", None, (b"*",), AUTH_ABORTED),
    ("LOGIN", None, (_b64(b"you"), b"*"), AUTH_ABORTED),
    ("LOGIN", _b64(b"you"), (b"secret",), AUTH_NOT_BASE64),
    ("LOGIN", b"=", (_b64(b"secret"),), AUTH_WRONG),
]


@pytest.mark.parametrize(("mechanism", "initial", "answers", "reply"), BAD)
async def test_mistakes(
    mechanism: str, initial: bytes | None, answers: tuple[bytes], reply: Reply
) -> None:
    with pytest.raises(SaslError) as error:
        await _exchange(mechanism, initial, *answers)
    assert error.value.reply == reply


async def test_nothing_shows_the_password() -> None:
    found = await _exchange("PLAIN", _b64(b"\0you\0secret"))
    assert "secret" not in f"{found} {found!r}"
    with pytest.raises(SaslError) as error:
        await _exchange("PLAIN", b"c2VjcmV0!")
    assert error.value.__cause__ is None
    assert "c2VjcmV0" not in repr(error.value)
