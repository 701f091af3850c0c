"""Free TCP and UDP ports on loopback, for servers that tests start.

Ports are drawn below the range that the kernel gives to outgoing connections, so that none of
those can take a port between the moment it is found free and the moment its server binds it. For
the same reason each of the processes that run tests side by side has ports of its own.
"""

import os
import random
import socket

# Linux gives 32768 and above to outgoing connections; the ports that Gatepost and its neighbours
# have by default are all below 10000.
_FIRST, _LAST = 12000, 32000
_PARTS = 4
_PART = (_LAST - _FIRST) // _PARTS
_ATTEMPTS = 200

# Seeded by the system, not by whoever fixes the seed of `random` to repeat a test: many runs side
# by side would then draw the same ports.
_random = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """A port that nothing on 127.0.0.1 is bound to, never given twice to one process."""
    # pytest-xdist numbers its processes: gw0, gw1, …
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + worker % _PARTS * _PART
    for _ in range(_ATTEMPTS):
        port = _random.randrange(first, first + _PART)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port found between {first} and {first + _PART}")


def free_ports(count: int) -> tuple[int, ...]:
    """That many different free ports."""
    return tuple(free_port() for _ in range(count))


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
