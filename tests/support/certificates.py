"""Certificate files as cert-manager mounts them: tls.crt, tls.key and ca.crt in one folder."""

from __future__ import annotations

from pathlib import Path

import trustme


class CertificateFolder:
    """A folder of files that `issue` exchanges."""

    def __init__(self, folder: Path, *, authority: trustme.CA | None = None) -> None:
        self.authority = authority or trustme.CA()
        self.certificate = folder / "tls.crt"
        self.key = folder / "tls.key"
        self.ca = folder / "ca.crt"
        folder.mkdir(parents=True, exist_ok=True)

    def issue(self, *names: str) -> None:
        """Write a fresh certificate for these names, and the authority's."""
        made = self.authority.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        for path, octets in (
            (self.key, made.private_key_pem.bytes()),
            (self.certificate, chain),
            (self.ca, self.authority.cert_pem.bytes()),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(octets)
            fresh.replace(path)
