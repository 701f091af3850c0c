"""What `gatepost up` takes for granted: loopback ports above 1024, everything kept in one folder.

A configuration file is laid over these values, so that it need name only what is to be different.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

DOMAIN: Final = "example.test"
ACCOUNT: Final = f"you@{DOMAIN}"
NATS_USER: Final = "gatepost"
NATS_PORT: Final = 4222
LOOPBACK: Final = "127.0.0.1"


def defaults(data: Path, *, has_file: bool, embedded_nats: bool = True) -> dict[str, Any]:
    """The values under the user's file.

    Without a file there is a local domain to try with. A NATS server of the user's own has
    credentials of its own.
    """
    data = data.absolute()
    values: dict[str, Any] = {
        "smtp": {
            "listeners": [
                {"name": "mx", "address": LOOPBACK, "port": 2525, "role": "mx", "tls": "starttls"},
                {
                    "name": "submission",
                    "address": LOOPBACK,
                    "port": 2587,
                    "role": "submission",
                    "tls": "starttls",
                },
                {
                    "name": "submissions",
                    "address": LOOPBACK,
                    "port": 2465,
                    "role": "submission",
                    "tls": "implicit",
                },
            ],
            "tls": {
                "certificate_file": str(data / "tls" / "tls.crt"),
                "key_file": str(data / "tls" / "tls.key"),
            },
        },
        "mailbox": {"directory": str(data / "mail")},
        "keys": {"directory": str(data / "keys")},
        "nats": {"urls": [f"nats://{LOOPBACK}:{NATS_PORT}"]},
        "auth": {"tokens_directory": str(data / "tokens")},
        "services": {
            "ingress": {"http": f"{LOOPBACK}:9101"},
            "policy": {"http": f"{LOOPBACK}:9102", "grpc": f"{LOOPBACK}:7100"},
            "delivery": {"http": f"{LOOPBACK}:9103", "grpc": f"{LOOPBACK}:7300"},
            "keys": {"http": f"{LOOPBACK}:9104", "grpc": f"{LOOPBACK}:7200"},
            "grace_period": "10s",
        },
    }
    if embedded_nats:
        credentials = {"username": NATS_USER, "password_file": str(data / "nats" / "password")}
        values["nats"] |= credentials
    if not has_file:
        values["smtp"]["hostname"] = f"mail.{DOMAIN}"
        values["domains"] = {"local": [DOMAIN]}
    return values
