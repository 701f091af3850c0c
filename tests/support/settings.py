"""Settings by their dotted paths: values that the model takes, and mistakes that it refuses.

The tests of the model, of its JSON schema and of the chart's values go through the same ones.
"""

from collections.abc import Mapping
from typing import Any, Final

RIGHT: Final[Mapping[str, tuple[Any, ...]]] = {
    "smtp/hostname": ("mx.example.org", "MX1", "bücher.example", "xn--bcher-kva.example", "1-2"),
    "smtp/max_message_size": (0, 100_000_000, "100MB", " 1.5 GiB ", "0"),
    "smtp/limits/content_memory": (4 * 2**20, "4MiB", "5MB", "0.5GB"),
    "smtp/limits/header_size": (1024, "1KiB", "384KiB", "0.1MB"),
    "smtp/limits/idle": (0, "0", "5m", "0s", "\t1.5 h\n"),
    "smtp/limits/line_length": (0, 998, 2000),
    "smtp/limits/exempt_networks/0": ("10.0.0.0/8", "192.0.2.1", "10.0.0.0/255.0.0.0", "fe80::/10"),
    "services/grace_period": ("45s", "0"),
    "services/ingress/http": ("127.0.0.1:7100", "[::1]:0", ":65535", "policy.mail.svc:07100"),
    "domains/local/0": ("example.org", "a", "3com.example", "b4.4b"),
    "domains/relay": (
        {"a.org": "smtp:mail.a.org:25", "B-2.example": "smtp:10.0.0.5", "é.org": "lmtp:[::1]:24"},
        {"a.org": "smtp:[2001:db8::1]"},
        {"a.org": "smtp:bücher.example:2525"},
        {"a.org": "smtp:1-2:025"},
    ),
    "recipients/catch_all": ("", "bob@example.org", '"b o@b"@example.org', "böb@example.org"),
    "recipients/aliases": (
        {"a@example.org": "b@example.org", "o'x+1@example.org": ["b@[192.0.2.1]", "é@a.org"]},
    ),
    "mailbox/quotas": ({"you@example.org": "1GB"},),
    "policy/networks/trusted/0": ("192.0.2.0/24", "2001:db8::/32", "::1", "::ffff:192.0.2.1"),
    "policy/allow/0": ("192.0.2.0/24", "example.org", "Ann@example.org", " ::1 ", "éa.org"),
    "policy/greylist/delay": ("1ms", "0.001s", "10d"),
    "delivery/retry/interval": ("60m", "00.5 s"),
    "delivery/retry/initial": (None, "5m"),
    "delivery/retry/max_age": (0, "0", "7d"),
    "delivery/smarthost/host": ("", "smtp.example.net", "192.0.2.1", "[::1]", "fe80::1%eth0"),
    "delivery/helo_name": ("", "mx", "10.0.0.1"),
    "delivery/rate/exceptions": ({"example.org": 5, "é.org": 0},),
    "keys/check_interval": ("1s", "1000ms"),
    "keys/signature_lifetime": (0, "1h", "7d"),
    "keys/publication_servers/0": ("192.0.2.53", "[2001:db8::53]:5353", "2001:db8::53"),
    "dns/servers/0": ("192.0.2.53:5353", " ::1 ", "[192.0.2.1]:53"),
}

WRONG: Final[Mapping[str, tuple[Any, ...]]] = {
    "smtp/hostname": ("not_a_host", "a.org.", "-a.org", "a..b", "10.0.0.1", "a b", ""),
    "smtp/max_message_size": (-1, "1 megabyte", "1Mb", True),
    "smtp/limits/content_memory": (1000,),
    "smtp/limits/header_size": (1023, 384 * 1024 + 1),
    "smtp/limits/idle": (300, "300", -1, "5 minutes", "1h30m", False, ""),
    "smtp/limits/line_length": (100, 997, -1),
    "smtp/limits/exempt_networks/0": ("foo", "10.0.0", "10.0.0.0/", 5),
    "services/grace_period": (45,),
    "services/ingress/http": ("7100", "host:70000", "::1:7100"),
    "domains/local/0": ("example.org.", "a@b.org", "*.example.org", "192.0.2.1"),
    "domains/relay": (
        {"a.org": "mail.a.org:25"},
        {"a.org": "lmtp:mail.a.org"},
        {"a.org": "smtp:mail_a.org"},
        {"a.org": "smtp:mail.a.org.:25"},
        {"a.org": "smtp:mail.a.org:0"},
        {"a.org": "smtp:mail.a.org:70000"},
        {"a.org": "smtp::25"},
        {"a.org": "smtp:10.0.0"},
        {"a.org": "https://a.org"},
        {"a_b.org": "smtp:mail.a.org"},
        {"a.org.": "smtp:mail.a.org"},
    ),
    "recipients/catch_all": ("bob", "bob@", "@example.org", "b b@example.org", "b@a_b.org"),
    "recipients/aliases": ({"a": "b@example.org"}, {"a@b.org": "b"}, {"a@b.org": ["b"]}),
    "mailbox/quotas": ({"you": "1GB"}, {"you@example.org": "much"}),
    "policy/networks/trusted/0": ("foo", "example.org", "192.0.2.0/x", ":/y"),
    "policy/allow/0": ("a_b", "10.0.0", "example.org.", "@", True, None),
    "policy/greylist/delay": (0, "0", "0m", "0.00s", 5),
    "delivery/retry/interval": (60, 0, "0", "0s", "60", "often", None),
    "delivery/retry/initial": (0, "0s"),
    "delivery/retry/max_age": (60, "-1m"),
    "delivery/smarthost/host": ("a_b", "a.org:25", "10.0.0", "smtp:a.org"),
    "delivery/helo_name": ("a b",),
    "delivery/rate/exceptions": ({"a_b": 3}, {"a.org": -1}),
    "keys/check_interval": (0, 60, "0s"),
    "keys/signature_lifetime": (7, "1w"),
    "keys/publication_servers/0": ("ns1.example.org", "192.0.2.53:0"),
    "dns/servers/0": ("localhost", "192.0.2.1:99999", ""),
}
"""Mistakes that a JSON schema can tell."""


def nested(path: str, value: Any) -> dict[str, Any]:
    """The sections around a value; a number is the place in a list."""
    for key in reversed(path.split("/")):
        value = [value] if key.isdigit() else {key: value}
    assert isinstance(value, dict)
    return value
