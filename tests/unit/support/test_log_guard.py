"""The guard that fails a unit test for a warning that nobody announced."""

import logging

import pytest

from tests.support.log_guard import LogGuard

_LOG = logging.getLogger("gatepost.test")


@pytest.fixture
def log_guard() -> LogGuard:
    """Replaces the guard of this module's tests: each drives one by hand."""
    return LogGuard()


def test_a_quiet_test_passes(log_guard: LogGuard) -> None:
    log_guard.start()
    _LOG.info("all is well")
    log_guard.finish()


def test_an_announced_warning_passes(log_guard: LogGuard) -> None:
    log_guard.expect("is late")
    log_guard.start()
    _LOG.warning("%s is late", "mx.example.test")
    log_guard.finish()


def test_an_unexpected_warning_fails_and_is_shown(log_guard: LogGuard) -> None:
    log_guard.expect("is late")
    log_guard.start()
    _LOG.warning("mx.example.test is late")
    _LOG.error("mx.example.test is gone")
    with pytest.raises(pytest.fail.Exception, match=r"not expected: ERROR .*is gone") as failure:
        log_guard.finish()
    assert "is late" not in str(failure.value)


def test_an_announced_warning_that_does_not_come_fails(log_guard: LogGuard) -> None:
    log_guard.expect("is late")
    log_guard.start()
    with pytest.raises(pytest.fail.Exception, match="not logged: is late"):
        log_guard.finish()


def test_a_finished_guard_no_longer_listens(log_guard: LogGuard) -> None:
    log_guard.start()
    log_guard.finish()
    _LOG.warning("after the end")
    log_guard.finish()
