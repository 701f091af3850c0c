"""SMTP and LMTP as a client: connection, dialogue, the form of content on the wire."""
