"""ARC (RFC 8617): what forwarders say that a mail was when it came to them.

`sets` finds and reads the fields, `chain` verifies them, `testimony` is what a trusted forwarder's
word is good for.
"""
