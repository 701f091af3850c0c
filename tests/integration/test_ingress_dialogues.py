"""Plays every conversation of tests/dialogues against the real session engine over a socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.ingress import heartbeat, judge_stream
from tests.support.dialogue import Conversation, Cut, play, prepare, read
from tests.support.edge import running_edge
from tests.support.nats_server import NatsServer

_FOLDER = Path(__file__).parents[1] / "dialogues"
_CONVERSATIONS = [read(path) for path in sorted(_FOLDER.glob("*.txt"))]
_PLAYS = [
    pytest.param(conversation, cut, id=f"{conversation.name}-{cut}")
    for conversation in _CONVERSATIONS
    for cut in conversation.cuts
]


@pytest.mark.parametrize(("conversation", "cut"), _PLAYS)
async def test_conversation(
    conversation: Conversation,
    cut: Cut,
    tmp_path: Path,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not conversation.name.startswith("policy_"):
        # Policy is in this process too, and a moment in which nothing runs is not its silence.
        monkeypatch.setattr(judge_stream, "OPEN_DEADLINE_S", 30.0)
        monkeypatch.setattr(judge_stream, "HEALTH_DEADLINE_S", 30.0)
        monkeypatch.setattr(heartbeat, "HEALTH_DEADLINE_S", 30.0)
    async with running_edge(tmp_path, nats_server) as edge:
        prepare(conversation, edge)
        await play(conversation, edge, cut)


def test_there_are_conversations() -> None:
    assert len(_CONVERSATIONS) > 20
