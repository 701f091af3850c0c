"""Unit tests touch no network, do not sleep, and log no warning that they do not announce."""

import pytest

from tests.support.log_guard import LogGuard


@pytest.fixture(autouse=True)
def _no_unexpected_warning(log_guard: LogGuard) -> None:
    """Every unit test is guarded."""
