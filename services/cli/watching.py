"""Events of the queue as they happen, across connections.

A server ends each connection after some minutes, so that clients find new replicas, and a service
may be restarted. Where events go on is known by the number of the last, so that none is lost or
told twice; what happens between two connections before the first event is not told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.event_pb2 import Event
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from services.cli.connection import Connection
from services.cli.failure import CliError, Exit
from services.cli.output import printable, stderr_console

PAUSE_S: Final = 1.0
"""Between two connections."""

_LASTED_S: Final = 5.0
_TELL_AFTER: Final = 3
"""Failures in a row; a restart takes a moment."""


def watched(connection: Connection, message_id: str = "") -> Iterator[Event]:
    """The events of a mail, or of all, for ever. Raises `CliError` if there is no service at first,
    or if it refuses to tell."""
    stub = QueueServiceStub(connection.channel)
    # Is it there, and does it let us? A stream tells nothing until something happens.
    connection.call(stub.ListMessages, pb.ListMessagesRequest(page_size=1))
    request = pb.WatchEventsRequest(message_id=message_id)
    failures = 0
    while True:
        began = time.monotonic()
        try:
            for response in connection.stream(stub.WatchEvents, request):
                request.after_sequence, failures = response.sequence, 0
                yield response.event
        except CliError as error:
            if error.exit_code is not Exit.UNAVAILABLE:
                raise
            failures = 1 if time.monotonic() - began > _LASTED_S else failures + 1
            if failures == _TELL_AFTER:
                stderr_console.print(printable(f"{error}; still trying"), markup=False)
        time.sleep(PAUSE_S)
