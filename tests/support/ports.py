"""Free TCP and UDP ports on loopback, for servers that tests start.

Ports are drawn below the range that the kernel gives to outgoing connections, so that none of
those can take a port between the moment it is found free and the moment its server binds it. For
the same reason the processes that run tests, of this run or of another one, share no ports: each
draws from blocks of its own, for as long as it lives.
"""

import random
import socket
from collections.abc import Iterator

# Linux gives 32768 and above to outgoing connections; the ports that Gatepost and its neighbours
# have by default are all below 10000.
_FIRST, _LAST = 12000, 32000
_BLOCK = 50

# Seeded by the system, not by whoever fixes the seed of `random` to repeat a test: many runs side
# by side would then draw the same ports.
_random = random.SystemRandom()


def free_port() -> int:
    """A port that nothing on 127.0.0.1 is bound to, never given twice to one process."""
    for port in _ours:
        if _is_free(port):
            return port
    raise RuntimeError(f"no free port found between {_FIRST} and {_LAST}")


def free_ports(count: int) -> tuple[int, ...]:
    """That many different free ports."""
    return tuple(free_port() for _ in range(count))


def _ports() -> Iterator[int]:
    blocks = range(_FIRST, _LAST, _BLOCK)
    for first in _random.sample(blocks, len(blocks)):
        if _claim(first):
            yield from _random.sample(range(first, first + _BLOCK), _BLOCK)


_ours = _ports()


def _claim(first: int) -> bool:
    """Whether a block is ours from now on, until this process ends.

    A name that starts with a NUL is no file: the kernel gives it to one socket of those who see
    the same ports as we do, and forgets it with that socket.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0gatepost-test-ports-{first}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
