"""Addresses that nobody connects to, in every spelling that leads to them."""

from ipaddress import ip_address, ip_network

import pytest

from services.common.networks import is_forbidden


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("::", True),
        ("::1", True),
        # IPv4-compatible
        ("::127.0.0.1", True),
        ("::10.0.0.1", True),
        ("::169.254.169.254", True),
        ("::8.8.8.8", False),
        # IPv4-translated
        ("::ffff:0:127.0.0.1", True),
        ("::ffff:0:10.0.0.1", True),
        ("::ffff:0:8.8.8.8", False),
        # IPv4-mapped
        ("::ffff:192.168.0.1", True),
        ("::ffff:8.8.8.8", False),
        # site-local, SRv6, documentation, never assigned
        ("fec0::1", True),
        ("feff:ffff::1", True),
        ("5f00::1", True),
        ("5f00:ffff::1", True),
        ("3fff::1", True),
        ("3fff:fff:ffff::1", True),
        ("3fff:1000::1", False),
        ("4000::1", True),
        ("8000::1", True),
        ("1::1", True),
        # ISATAP
        ("2a00:1450::5efe:127.0.0.1", True),
        ("2a00:1450::200:5efe:10.0.0.1", True),
        ("2a00:1450::200:5efe:8.8.8.8", False),
        ("fe80::5efe:8.8.8.8", True),
        ("fe80::200:5efe:8.8.8.8", True),
        ("2002:808:808::5efe:10.0.0.1", True),
        ("2a00:1450::5eff:127.0.0.1", False),
        ("2a00:1450::100:5efe:127.0.0.1", False),
    ],
)
def test_every_spelling_is_judged_by_what_is_meant(address: str, forbidden: bool) -> None:
    assert is_forbidden(ip_address(address), []) is forbidden


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("10.0.0.1", False),
        ("::10.0.0.1", False),
        ("::ffff:0:10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("2a00:1450::5efe:10.0.0.1", False),
        ("fec0::1", False),
        ("127.0.0.1", True),
        ("::127.0.0.1", True),
        ("fe80::5efe:10.0.0.1", True),  # the link was not allowed
    ],
)
def test_an_allowed_network_allows_every_spelling(address: str, forbidden: bool) -> None:
    allowed = [ip_network("10.0.0.0/8"), ip_network("fec0::/10")]
    assert is_forbidden(ip_address(address), allowed) is forbidden
