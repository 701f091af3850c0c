"""Mailboxes on disk: nothing outside the directory, nothing half, nothing left behind."""

import os
from pathlib import Path

import pytest

from services.common.mail.address import make_mailbox
from services.delivery.maildir import Deposit, mailbox_path


def deposit(mailbox: Path, name: str, data: bytes, *, junk: bool = False) -> None:
    made = Deposit(mailbox, name, junk=junk)
    made.begin()
    made.write(data)
    made.commit()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_mail_appears_whole_in_new(tmp_path: Path) -> None:
    mailbox = tmp_path / "example.test" / "you"
    made = Deposit(mailbox, "1.a-1", junk=False)
    made.begin()
    made.write(b"half ")
    assert not any((mailbox / "new").iterdir())
    made.write(b"and half")
    made.commit()
    assert files(mailbox) == {"new/1.a-1": b"half and half"}
    assert {path.name for path in mailbox.iterdir()} == {"tmp", "new", "cur"}
    assert (mailbox / "new" / "1.a-1").stat().st_mode & 0o777 == 0o600


def test_spam_goes_to_junk(tmp_path: Path) -> None:
    deposit(tmp_path / "you", "1.a-1", b"buy", junk=True)
    assert files(tmp_path / "you") == {".Junk/new/1.a-1": b"buy", ".Junk/maildirfolder": b""}


def test_every_folder_that_is_made_is_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        deposit(tmp_path / "mail" / "example.test" / "you", "1.a-1", b"buy", junk=True)
    finally:
        os.umask(before)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(folders) == 3 + 3 + 1 + 3
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_a_file_in_the_way_of_a_mailbox_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "example.test").touch()
    with pytest.raises(NotADirectoryError):
        deposit(tmp_path / "example.test" / "you", "1.a-1", b"mail")


def test_the_same_mail_again_is_there_once(tmp_path: Path) -> None:
    for _ in range(2):
        deposit(tmp_path / "you", "1.a-1", b"mail")
    assert files(tmp_path / "you") == {"new/1.a-1": b"mail"}


def test_what_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    made = Deposit(tmp_path / "you", "1.a-1", junk=False)
    made.begin()
    made.write(b"half")
    made.abandon()
    made.abandon()
    assert files(tmp_path / "you") == {}


@pytest.mark.parametrize(
    ("local_part", "expected"),
    [
        ("you", "you"),
        ("You", "you"),
        ("you+tag", "you+tag"),
        ("a.b", "a.b"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("/abs", "%2Fabs"),
        ("a%2fb", "a%252fb"),
        ("zoë", "zo%C3%AB"),
        ("a b", "a%20b"),
        ('a"b', "a%22b"),
        ("a\\b", "a%5Cb"),
        ("a*?b", "a%2A%3Fb"),
        ("ü" * 32, "%C3%BC" * 32),
    ],
)
def test_no_address_leads_out_of_the_directory(
    tmp_path: Path, local_part: str, expected: str
) -> None:
    path = mailbox_path(tmp_path, make_mailbox(local_part, "example.test"))
    assert path == tmp_path / "example.test" / expected
    assert len(expected) <= 255
    deposit(path, "1.a-1", b"mail")
    assert list(files(tmp_path)) == [f"example.test/{expected}/new/1.a-1"]
