"""DMARC (RFC 9989): what the author's domain publishes, and whether the mail is its own.

`record` reads records, `walk` finds them (the DNS Tree Walk), `evaluation` compares domains.
"""
