"""What the encryption of a session with a mail exchange has to be, and what became of it.

`sts` finds a domain's MTA-STS policy (RFC 8461): `sts_policy` reads it, `sts_fetch` gets it over
HTTPS, `sts_store` keeps it for all replicas. `dane` finds a host's TLSA records (RFC 7672), and
`association` compares a certificate with them. `report` has the words of TLSRPT (RFC 8460).

Nothing here speaks SMTP; `services.delivery.smtp` does not know where a demand comes from.
"""
