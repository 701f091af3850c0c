"""The log of a child: whole lines, in files of bounded size."""

from pathlib import Path

from services.cli.up.log_file import OLDER_FILES, LogFile


def test_lines_are_there_at_once_and_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "ingress.log"
    first = LogFile(path)
    first.write(b"one\n")
    assert path.read_bytes() == b"one\n"
    first.close()
    second = LogFile(path)
    second.write(b"two\nthree\n")
    second.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_full_file_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "ingress.log"
    log = LogFile(path, file_octets=10)
    for number in range(12):
        log.write(b"line %2d\n" % number)
    log.close()
    older = [path.with_name(f"ingress.log.{number}") for number in range(1, OLDER_FILES + 1)]
    assert [each.read_bytes() for each in (path, *older)] == [
        b"line 11\n",
        b"line 10\n",
        b"line  9\n",
        b"line  8\n",
    ]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        each.name for each in (path, *older)
    )


def test_what_was_there_before_counts(tmp_path: Path) -> None:
    path = tmp_path / "ingress.log"
    path.write_bytes(b"x" * 9 + b"\n")
    log = LogFile(path, file_octets=12)
    log.write(b"a\n")
    log.write(b"b\n")
    log.close()
    assert path.read_bytes() == b"b\n"
    assert path.with_name("ingress.log.1").read_bytes() == b"x" * 9 + b"\na\n"


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "ingress.log"
    path.mkdir()
    LogFile(path).write(b"lost\n")
