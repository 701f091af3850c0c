"""opendkim as a verifier: another implementation, by other people, in another language."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.programs import program


def verified(message: bytes, records: Mapping[str, str], folder: Path) -> list[str]:
    """What opendkim makes of each signature, such as "pass ed25519-sha256 s1".

    `records` are the TXT records of keys by name; nobody else is asked.
    """
    keys, configuration, mail = folder / "keys", folder / "opendkim.conf", folder / "mail"
    keys.write_text("".join(f"{name} {value}\n" for name, value in records.items()))
    configuration.write_text(f"Mode v\nTestPublicKeys {keys}\nSyslog no\n")
    mail.write_bytes(message)
    command = [program("opendkim"), "-x", str(configuration), "-t", str(mail), "-v", "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    results = []
    for line in done.stdout.splitlines():
        words = line.replace(";", " ").split()
        tags = dict(word.split("=", 1) for word in words if "=" in word)
        if "dkim" in tags:
            results.append(f"{tags['dkim']} {tags['header.a']} {tags['header.s']}")
    return results
