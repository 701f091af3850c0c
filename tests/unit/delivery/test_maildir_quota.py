"""What a mailbox holds is known without counting it each time, and is found out when in doubt."""

import os
import time
from pathlib import Path

import pytest

from services.delivery.maildir import MAILBOX_FULL, Deposit, reply_to
from services.delivery.maildir_quota import FILE, FRESH_S, MailboxFull, check

QUOTA = 10_000


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    return tmp_path / "example.test" / "you"


def deposit(
    mailbox: Path, number: int, octets: int, *, junk: bool = False, quota: int = QUOTA
) -> None:
    name = f"{number}.m-1.gatepost,S={octets}"
    made = Deposit(mailbox, name, junk=junk, octets=octets, quota=quota)
    try:
        made.begin()
        made.write(b"x" * octets)
        made.commit()
    except OSError:
        made.abandon()
        raise


def fits(mailbox: Path, octets: int, *, quota: int = QUOTA) -> bool:
    try:
        check(mailbox, quota, octets)
    except MailboxFull:
        return False
    return True


def account(mailbox: Path) -> list[str]:
    return (mailbox / FILE).read_text(encoding="ascii").splitlines()


def test_mails_of_all_folders_count_until_the_quota_is_reached(mailbox: Path) -> None:
    deposit(mailbox, 1, 4000)
    deposit(mailbox, 2, 4000, junk=True)
    assert fits(mailbox, 2000)
    with pytest.raises(MailboxFull) as failed:
        deposit(mailbox, 3, 2001)
    assert reply_to(failed.value) == MAILBOX_FULL
    assert not [path for path in mailbox.rglob("tmp/*") if path.is_file()]
    assert account(mailbox) == [f"{QUOTA}S", "0 0", "4000 1", "4000 1"]


def test_a_first_mail_that_is_too_large_does_not_fit(mailbox: Path) -> None:
    with pytest.raises(MailboxFull):
        deposit(mailbox, 1, QUOTA + 1)
    deposit(mailbox, 2, QUOTA)


def test_what_was_there_before_is_counted(mailbox: Path) -> None:
    for number in range(3):
        deposit(mailbox, number, 3000, quota=0)
    (mailbox / "cur").joinpath("4.m-4.other:2,S").write_bytes(b"x" * 900)
    assert not (mailbox / FILE).exists()
    assert fits(mailbox, 100)
    assert not fits(mailbox, 101)
    assert account(mailbox) == [f"{QUOTA}S", "9900 4"]


def test_another_quota_is_counted_anew(mailbox: Path) -> None:
    deposit(mailbox, 1, 9000)
    assert not fits(mailbox, 2000)
    assert fits(mailbox, 2000, quota=20_000)
    assert account(mailbox)[0] == "20000S"


@pytest.mark.parametrize(
    "text", ["", "garbage\n", f"{QUOTA}S\nx y\n", f"{QUOTA}S\n" + "1 1\n" * 2000]
)
def test_an_account_that_is_broken_or_long_is_made_anew(mailbox: Path, text: str) -> None:
    deposit(mailbox, 1, 9000)
    (mailbox / FILE).write_text(text, encoding="ascii")
    assert not fits(mailbox, 1001)
    assert account(mailbox) == [f"{QUOTA}S", "9000 1"]


def test_a_full_mailbox_is_counted_again_after_a_while(mailbox: Path) -> None:
    deposit(mailbox, 1, 9000)
    next((mailbox / "new").iterdir()).unlink()
    assert not fits(mailbox, 2000)
    long_ago = time.time() - FRESH_S - 1
    os.utime(mailbox / FILE, (long_ago, long_ago))
    assert fits(mailbox, 2000)
