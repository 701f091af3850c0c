"""What every ring of tests shares: deadlines, ports, a nats-server, the watch over the log."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.log_guard import LogGuard
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port as find_free_port
from tests.support.ports import free_ports as find_free_ports
from tests.support.programs import extend_search_path

# Seconds that one test may take before it is ended, by the ring that it is in; `timeout` marks on
# a test win. Several times what the tests need, since machines are busy.
_DEADLINE_SECONDS = {"unit": 10, "integration": 60, "e2e": 300}
_OTHER_DEADLINE_SECONDS = 60
_TESTS = Path(__file__).parent


def pytest_configure() -> None:
    extend_search_path()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        ring = item.path.relative_to(_TESTS).parts[0]
        if item.get_closest_marker("timeout") is None:
            item.add_marker(
                pytest.mark.timeout(_DEADLINE_SECONDS.get(ring, _OTHER_DEADLINE_SECONDS))
            )


@pytest.fixture
def log_guard(request: pytest.FixtureRequest) -> Iterator[LogGuard]:
    """Fails the test if it logs a WARNING that it did not announce; all unit tests have it."""
    guard = LogGuard()
    for marker in request.node.iter_markers("expect_warnings"):
        for text in marker.args:
            guard.expect(text)
    guard.start()
    yield guard
    guard.finish()


@pytest.fixture
def expected_log(log_guard: LogGuard) -> Callable[[str], None]:
    """Call it with a text that a line of level WARNING or above will have; it must then come."""
    return log_guard.expect


@pytest.fixture
def free_port() -> int:
    """A TCP and UDP port on 127.0.0.1 that nothing is bound to."""
    return find_free_port()


@pytest.fixture
def free_ports() -> Callable[[int], tuple[int, ...]]:
    """Call it with a number to get that many different free ports."""
    return find_free_ports


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A running nats-server of this module's tests; see tests/support/nats_server.py."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.close()
