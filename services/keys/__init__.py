"""The keys service: DKIM keys (RFC 6376) that are made, published, used and retired here.

The only reader of private keys; none ever leaves this package, except into the key store.
"""
