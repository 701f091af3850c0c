"""How a process ends: exit codes, and the errors of starting that are one line each."""

import errno
import os
import socket
from enum import IntEnum


class ExitCode(IntEnum):
    """What `gatepost <service>` returns; scripts and supervisors may rely on it."""

    CLEAN = 0  # asked to stop, and stopped in order
    FAILURE = 1  # no start, a long-lived task failed, or a second signal came
    BAD_CONFIG = 2  # the configuration has to change before another start makes sense


class StartError(Exception):
    """Starting is not possible; `str()` is one line for the operator that says what to change."""

    def __init__(self, text: str, *, exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(" ".join(text.split()))
        self.exit_code = exit_code


def bind_error(setting: str, *, host: str, port: int, error: OSError) -> StartError:
    """The error for a listener that could not be bound; `setting` is the key of its port."""
    place = f"{host}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            why = f"{place} is in use by another process; choose another port"
        case errno.EACCES:
            why = f"no permission to listen on {place}; choose a port above 1023"
        case errno.EADDRNOTAVAIL:
            why = f"{host} is not an address of this machine"
        case _:
            why = f"cannot listen on {place}: {error.strerror or error}"
    return StartError(f"{setting}: {why}")


def probe_port(setting: str, *, host: str, port: int) -> None:
    """Raise what `bind_error` says if a stream socket cannot be bound there right now.

    For listeners of libraries that do not tell why they failed (gRPC). Port 0 always passes.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except socket.gaierror as error:
        why = f"{host} cannot be resolved: {error.strerror}"
        raise StartError(f"{setting}: {why}") from error
    except OSError as error:
        raise bind_error(setting, host=host, port=port, error=error) from error
