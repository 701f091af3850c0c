"""How many mistakes a client may make before its session ends.

Mistakes are commands in error, refused recipients, and commands that move no mail (NOOP without
end, or BDAT with next to no octets, keeps a connection without ever being idle). A message that was
accepted forgives all of them.
"""

from __future__ import annotations

from typing import Final

from services.common.config.smtp import Limits
from services.common.mail.reply import TOO_MANY_RECIPIENTS, Reply
from services.ingress.replies import OTHER_RULES

_COME_AGAIN: Final = frozenset({TOO_MANY_RECIPIENTS, OTHER_RULES})
"""Nothing was wrong with these recipients."""

_MOVES_NO_MAIL: Final = frozenset({"NOOP", "VRFY", "HELP", "RSET", "HELO", "EHLO", "STARTTLS"})


class Mistakes:
    """The count of one session."""

    def __init__(self) -> None:
        self._errors = 0
        self._recipients = 0
        self._idle_commands = 0

    def count(self, verb: str, reply: Reply | None, limits: Limits) -> bool:
        """Note a reply (None: a success of several lines). True when it was one too many."""
        if verb in _MOVES_NO_MAIL:
            self._idle_commands += 1
        if reply is not None:
            self._count_reply(verb, reply)
        return (
            self._errors >= limits.errors
            or self._recipients >= limits.recipient_errors
            or self._idle_commands > limits.idle_commands
        )

    def _count_reply(self, verb: str, reply: Reply) -> None:
        if verb == "RCPT":
            # Temporary ones too: asking for the same recipient for ever costs policy a call each.
            self._recipients += reply.code >= 400 and reply not in _COME_AGAIN
        elif verb != "CONTENT":
            self._errors += reply.is_permanent

    def note_small_chunk(self) -> None:
        """A chunk of next to no octets came, and more are to follow."""
        self._idle_commands += 1

    def forgive(self) -> None:
        """A message was accepted."""
        self._errors = self._recipients = self._idle_commands = 0
