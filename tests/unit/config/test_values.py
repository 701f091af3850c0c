"""Durations, sizes, networks and endpoints as people write them."""

from datetime import timedelta

import pytest

from services.common.config.types import (
    Endpoint,
    format_duration,
    format_size,
    parse_duration,
    parse_endpoint,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60m", 3600),
        ("1h", 3600),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("7d", 604800),
        ("0", 0),
        pytest.param(0, 0, id="number"),
        ("30 s", 30),
    ],
)
def test_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["60", 3600, "", "m", "-5m", "5 minutes", "1h30m", None, True, "٣m"]
)
def test_what_is_no_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="30s, 60m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("100MB", 100_000_000),
        ("100MiB", 104_857_600),
        ("256KiB", 262_144),
        ("1.5GB", 1_500_000_000),
        ("10 kB", 10_000),
        ("0", 0),
        pytest.param(0, 0, id="number"),
        (4096, 4096),
    ],
)
def test_size(text: object, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize("text", ["-1", -2, "100 megabytes", "1Mb", "MB", True, None])
def test_what_is_no_size_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="256KiB, 100MB"):
        parse_size(text)


@pytest.mark.parametrize("octets", [0, 1, 999, 1000, 1024, 10**6, 2**20, 123_456_789, 10**12])
def test_a_size_is_printed_so_that_it_reads_back(octets: int) -> None:
    assert parse_size(format_size(octets)) == octets


@pytest.mark.parametrize("seconds", [0, 0.25, 1, 59, 60, 3600, 86400, 90061])
def test_a_duration_is_printed_so_that_it_reads_back(seconds: float) -> None:
    length = timedelta(seconds=seconds)
    assert parse_duration(format_duration(length)) == length


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:7100", Endpoint("127.0.0.1", 7100)),
        ("[::1]:7100", Endpoint("::1", 7100)),
        ("policy.mail.svc:7100", Endpoint("policy.mail.svc", 7100)),
        (":9101", Endpoint("0.0.0.0", 9101)),
    ],
)
def test_endpoint(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text", ["7100", "host", "host:", "::1:7100", "host:70000", "host:a", "a b:80", 5]
)
def test_what_is_no_endpoint_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_endpoint(text)
