"""The life of a key: every state with every step, in one table."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from services.keys.state import ForbiddenStepError, KeyState, Step, after

# Rows are states, columns are steps in the order below; `-` is a step that is refused.
_STEPS = (
    Step.SEEN,
    Step.UNSEEN,
    Step.ACTIVATE,
    Step.ACTIVATE_UNSEEN,
    Step.RETIRE,
    Step.AGED,
    Step.DELETE,
)
_TABLE = """
pending   | published | pending | active | active | retired  | -       | deleted
published | published | pending | active | active | retired  | -       | -
active    | active    | active  | active | active | retiring | -       | -
retiring  | -         | -       | -      | -      | retiring | retired | -
retired   | -         | -       | -      | -      | retired  | -       | deleted
deleted   | -         | -       | -      | -      | -        | -       | -
"""
_ROWS = {
    (KeyState(cells[0]), step): cell
    for line in _TABLE.strip().splitlines()
    for cells in [[cell.strip() for cell in line.split("|")]]
    for step, cell in zip(_STEPS, cells[1:], strict=True)
}


def test_the_table_knows_every_state_and_step() -> None:
    assert set(_ROWS) == set(itertools.product(KeyState, Step))


@pytest.mark.parametrize(
    ("state", "step", "expected"), [(state, step, cell) for (state, step), cell in _ROWS.items()]
)
def test_what_follows(state: KeyState, step: Step, expected: str) -> None:
    if expected == "-":
        with pytest.raises(ForbiddenStepError, match=f"the key is {state}"):
            after(state, step)
    else:
        assert after(state, step) is KeyState(expected)


def test_a_refusal_says_what_to_do_instead() -> None:
    with pytest.raises(ForbiddenStepError, match="make a new one"):
        after(KeyState.RETIRED, Step.ACTIVATE)
    with pytest.raises(ForbiddenStepError, match="only a pending or retired key"):
        after(KeyState.ACTIVE, Step.DELETE)


def test_the_documentation_has_the_same_table() -> None:
    text = (Path(__file__).parents[3] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("## The life of a DKIM key")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    documented = {
        (KeyState(row[0]), step): cell
        for row in rows[2:]
        for step, cell in zip(_STEPS, row[1:], strict=True)
    }
    assert documented == _ROWS
