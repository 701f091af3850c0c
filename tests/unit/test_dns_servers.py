"""Which servers are asked, in which order."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.dns import DnsOptions, DnsResolver
from services.common.dns.servers import REST_SECONDS, Servers, parse_server, system_servers
from tests.support.clock import FakeClock


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", "192.0.2.1:53"),
        (" 192.0.2.1:5353 ", "192.0.2.1:5353"),
        ("2001:DB8::1", "[2001:db8::1]:53"),
        ("[2001:db8::1]", "[2001:db8::1]:53"),
        ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ("fe80::1%eth0", "[fe80::1%eth0]:53"),
    ],
)
def test_a_server_is_an_address_and_a_port(text: str, server: str) -> None:
    assert str(parse_server(text)) == server
    assert parse_server(server) == parse_server(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example.test",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:dns",
        "192.0.2.1:-1",
        "192.0.2.1:٥٣",
        "192.0.2",
        "[2001:db8::1",
        "[2001:db8::1]5353",
        "[192.0.2.1",
    ],
)
def test_an_impossible_server_is_named_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address") as caught:
        DnsResolver(DnsOptions(servers=("192.0.2.1", text)))
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("resolv_conf", "servers"),
    [
        (
            "search cluster.local\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # second\n",
            ["192.0.2.1:53", "[2001:db8::1]:53"],
        ),
        ("options ndots:5\n; nameserver 192.0.2.9\n", ["127.0.0.1:53"]),
        ("nameserver\n", ["127.0.0.1:53"]),
        (None, ["127.0.0.1:53"]),
    ],
)
def test_the_system_says_whom_to_ask(
    tmp_path: Path, resolv_conf: str | None, servers: list[str]
) -> None:
    file = tmp_path / "resolv.conf"
    if resolv_conf is not None:
        file.write_text(resolv_conf)
    assert [str(server) for server in system_servers(file)] == servers


def test_a_line_of_the_system_that_makes_no_sense_is_passed_over(
    tmp_path: Path, expected_log: Callable[[str], None]
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver nonsense\nnameserver 192.0.2.1\n")
    expected_log("not an address")
    assert [str(server) for server in system_servers(file)] == ["192.0.2.1:53"]


def test_a_silent_server_is_asked_last_for_a_while() -> None:
    first, second, third = (parse_server(f"192.0.2.{number}") for number in (1, 2, 3))
    clock = FakeClock()
    servers = Servers((first, second, third), clock=clock)
    servers.failed(first, "no answer")
    assert servers.in_order() == [second, third, first]
    servers.failed(second, "no answer")
    servers.failed(third, "no answer")
    assert servers.in_order() == [first, second, third]
    servers.answered(second)
    assert servers.in_order() == [second, first, third]
    clock.advance(REST_SECONDS)
    assert servers.in_order() == [first, second, third]
