"""Callouts: asking a sender's mail exchange whether it would take a reply.

`dialogue` is the conversation, `exchanges` whom to talk to, `memory` what was said before, and
`callouts` puts them together with their limits.
"""
