"""How long a session waits: RFC 5321 §4.5.3.2 names the least for each step."""

from services.delivery.smtp.session import Patience

MINUTE = 60


def test_sessions_wait_as_long_as_the_rfc_says() -> None:
    patience = Patience()
    assert patience.greeting >= 5 * MINUTE
    assert patience.command >= 5 * MINUTE
    assert patience.data >= 2 * MINUTE
    assert patience.block >= 3 * MINUTE
    # Less here makes duplicates: the peer has the mail and we try again.
    assert patience.end_of_data >= 10 * MINUTE
