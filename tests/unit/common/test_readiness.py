"""Readiness: every condition counts, changes wake whoever watches, and stopping is for good."""

import asyncio
import logging

import pytest

from services.common.readiness import Readiness


def test_ready_when_every_condition_is_met() -> None:
    readiness = Readiness()
    queue, topology = readiness.require("queue"), readiness.require("topology", reason="unsafe")
    assert not readiness.ready
    assert readiness.unmet() == {"queue": "starting", "topology": "unsafe"}
    queue.meet()
    assert readiness.unmet() == {"topology": "unsafe"}
    topology.meet()
    assert readiness.ready
    queue.fail("no connection")
    assert readiness.unmet() == {"queue": "no connection"}
    queue.fail("")
    assert not readiness.ready  # a failure without a reason is one all the same


def test_stop_is_for_good() -> None:
    readiness = Readiness()
    condition = readiness.require("start")
    condition.meet()
    readiness.stop()
    readiness.stop()
    condition.meet()
    assert readiness.unmet() == {"stop": "shutting down"}


def test_name_is_taken_once() -> None:
    readiness = Readiness()
    readiness.require("queue")
    with pytest.raises(ValueError, match="queue"):
        readiness.require("queue")


async def test_no_change_is_missed() -> None:
    readiness = Readiness()
    queue = readiness.require("queue")
    change = readiness.next_change()
    queue.meet()
    queue.fail("gone again")
    await asyncio.wait_for(change.wait(), 1)  # taken before both changes
    assert not readiness.next_change().is_set()
    queue.fail("gone again")  # no change
    assert not readiness.next_change().is_set()


def test_turns_are_logged_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    readiness = Readiness()
    queue = readiness.require("queue")
    queue.meet()
    queue.fail("no connection")
    queue.fail("still none")
    queue.meet()
    readiness.stop()
    assert [r.getMessage() for r in caplog.records] == ["ready", "not ready", "ready"]
    assert caplog.records[1].fields == {"condition": "queue", "reason": "no connection"}  # type: ignore[attr-defined]
