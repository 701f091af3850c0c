"""Log lines: what is in them, and that nothing from outside can break or forge one."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.common import log
from services.common.log import DEBUG, INFO, LogFormat, event

_logger = logging.getLogger("services.delivery.attempt")


@pytest.fixture
def output() -> Iterator[Callable[..., io.StringIO]]:
    """Call it to have the log go to the stream that it returns."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(**options: Any) -> io.StringIO:
        stream = io.StringIO()
        log.configure("delivery", stream=stream, **options)
        return stream

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


Configure = Callable[..., io.StringIO]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_of_a_line(output: Configure) -> None:
    stream = output()
    event(_logger, INFO, "delivered 100% of it", destination="example.test", recipients=3)
    [line] = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "service": "delivery",
        "logger": "services.delivery.attempt",
        "msg": "delivered 100% of it",
        "destination": "example.test",
        "recipients": 3,
    }


@pytest.mark.parametrize(
    ("created", "time"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1767225599.9996, "2025-12-31T23:59:59.999Z"),
        (1767225600.25, "2026-01-01T00:00:00.250Z"),
    ],
)
def test_time_is_utc_with_milliseconds(output: Configure, created: float, time: str) -> None:
    stream = output()
    record = logging.LogRecord("x", INFO, "", 0, "text", None, None)
    record.created = created
    logging.getLogger().handle(record)
    assert lines(stream)[0]["time"] == time


def test_ids_follow_the_work(output: Configure) -> None:
    stream = output()

    async def child() -> None:
        event(_logger, INFO, "in a task")

    async def main() -> None:
        with log.session("abcdefghijklm"):
            event(_logger, INFO, "session")
            with log.message("abcdefghijklm-1"):
                await asyncio.create_task(child())
            event(_logger, INFO, "between")
        event(_logger, INFO, "after")

    asyncio.run(main())
    found = [(line["msg"], line.get("session"), line.get("message")) for line in lines(stream)]
    assert found == [
        ("session", "abcdefghijklm", None),
        ("in a task", "abcdefghijklm", "abcdefghijklm-1"),
        ("between", "abcdefghijklm", None),
        ("after", None, None),
    ]


def test_ids_given_by_hand_win(output: Configure) -> None:
    stream = output()
    with log.message("outer-1"):
        event(_logger, INFO, "swept", message="other-2")
    assert lines(stream)[0]["message"] == "other-2"


def test_field_cannot_replace_what_every_line_has(output: Configure) -> None:
    stream = output()
    event(_logger, INFO, "true", level="forged", msg="forged", time="forged")
    [line] = lines(stream)
    assert (line["level"], line["msg"], line["level_"]) == ("info", "true", "forged")


@pytest.mark.parametrize(
    "hostile",
    [
        'x\n{"level": "critical"}',
        "x\r\nFROM root",
        "\x00\x1b[2J\x7f",
        "\u2028\u2029\x85",
        "\udc80 surrogate",
        '" , "level": "forged',
    ],
)
@pytest.mark.parametrize("style", LogFormat)
def test_hostile_text_stays_within_its_line(
    output: Configure, hostile: str, style: LogFormat
) -> None:
    stream = output(style=style)
    event(_logger, INFO, "refused", helo=hostile)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    text.encode("ascii")
    if style is LogFormat.JSON:
        assert lines(stream)[0]["helo"] == hostile


def test_traceback_is_one_field(output: Configure) -> None:
    stream = output()
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        event(_logger, INFO, "failed", exc_info=True)
    [line] = lines(stream)
    assert line["error"].endswith("ValueError: first\nsecond")


def test_traceback_in_text_is_indented(output: Configure) -> None:
    stream = output(style=LogFormat.TEXT)
    try:
        raise ValueError("first\n12:00:00.000 INFO    forged")
    except ValueError:
        event(_logger, INFO, "failed", exc_info=True)
    first, *others = stream.getvalue().splitlines()
    assert first.endswith("delivery failed")
    assert others
    assert all(line.startswith("    ") for line in others)


def test_text_for_people(output: Configure) -> None:
    stream = output(style=LogFormat.TEXT)
    event(_logger, INFO, "delivered", destination="bücher.test", reply="250 2.0.0 Ok", none="")
    assert stream.getvalue()[12:] == (
        ' INFO    delivery delivered destination=bücher.test reply="250 2.0.0 Ok" none=""\n'
    )


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_no_value_can_lose_a_line(output: Configure) -> None:
    stream = output()
    endless: list[Any] = []
    endless.append(endless)
    event(_logger, INFO, "odd", a=object(), b=b"\xff", c=_Unprintable(), d={1, 2})
    event(_logger, INFO, "circle", e=endless)
    event(_logger, INFO, "keys", f={(1, 2): 3})
    assert [line["msg"] for line in lines(stream)] == ["odd", "circle", "keys"]


def test_wrong_format_of_a_library_still_gives_a_line(output: Configure) -> None:
    stream = output()
    _logger.info("%d items", "three")
    assert "%d items" in lines(stream)[0]["msg"]


def test_long_values_are_cut(output: Configure) -> None:
    stream = output()
    event(_logger, INFO, "said", reply="x" * 1_000_000)
    assert len(stream.getvalue()) < 10_000


def test_level(output: Configure) -> None:
    stream = output(level="info")
    event(_logger, DEBUG, "hidden", costly=_Unprintable())
    assert stream.getvalue() == ""
    log.set_level("debug")
    event(_logger, DEBUG, "shown")
    assert lines(stream)[0]["level"] == "debug"


def test_other_peoples_lines_look_like_ours(output: Configure) -> None:
    stream = output()
    logging.getLogger("nats").warning("gone: %s", "connection")
    [line] = lines(stream)
    assert (line["logger"], line["msg"], line["level"]) == ("nats", "gone: connection", "warning")
