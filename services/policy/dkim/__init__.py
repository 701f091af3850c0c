"""Verification of DKIM signatures (RFC 6376, RFC 8301, RFC 8463).

`syntax` is the adapter of dkimpy: tag lists and canonicalisation. `signature` is what a field says,
`key` what a key record says and the arithmetic (`cryptography`), `verification` puts them together.
"""
