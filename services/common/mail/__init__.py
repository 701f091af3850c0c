"""Mail vocabulary: addresses, replies, envelopes, header blocks, trace fields, identifiers.

Values and pure functions only. Nothing here opens a socket, reads a file or asks the time: what
depends on the world is passed in, so that every other part of the product can share these words and
test them with plain values.
"""
