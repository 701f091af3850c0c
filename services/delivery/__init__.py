"""The delivery service: the queue's life, routing, sessions with next hops, mailboxes, retries."""
