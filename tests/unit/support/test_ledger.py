"""The books themselves: a ledger that finds nothing proves nothing."""

from collections.abc import Callable

import pytest

from tests.support.ledger import HEADER, Ledger

BODY = b"text\n"
HERE = "you@one.example"
THERE = "you@two.example"


def mail(mail_id: str, body: bytes = BODY) -> bytes:
    return f"Subject: x\n{HEADER}: {mail_id}\n\n".encode() + body


def balanced() -> Ledger:
    ledger = Ledger()
    ledger.sent("a", BODY, (HERE, THERE))
    ledger.was_accepted("a")
    ledger.was_delivered(mail("a"), HERE)
    ledger.was_notified("a", THERE)
    ledger.sent("b", BODY, (HERE,), unwanted=True)
    ledger.was_refused("b", 550)
    ledger.sent("c", BODY, (HERE,))
    ledger.was_refused("c", 451)
    ledger.sent("d", BODY, (HERE,))
    ledger.is_unknown("d")
    ledger.was_delivered(mail("d"), HERE)
    return ledger


def test_what_balances_has_no_problems() -> None:
    assert balanced().problems(duplicates_allowed=0) == []


CASES: dict[str, tuple[Callable[[Ledger], object], str]] = {
    "lost": (lambda ledger: ledger.notified.clear(), "accepted and lost: ('a', 'you@two.example')"),
    "changed": (lambda ledger: ledger.was_delivered(mail("d", b"text \n"), HERE), "changed: d"),
    "unwanted": (lambda ledger: ledger.was_delivered(mail("b"), HERE), "yet delivered: b"),
    "taken": (lambda ledger: ledger.was_accepted("b"), "accepted though unwanted: b"),
    "bounced too": (lambda ledger: ledger.was_notified("a", HERE), "told that it was not"),
    "our 5xx": (lambda ledger: ledger.was_refused("c", 554), "no fault of its own: c 554"),
    "twice": (lambda ledger: ledger.was_delivered(mail("a"), HERE), "1 duplicates, 0 allowed"),
    "told twice": (lambda ledger: ledger.was_notified("a", THERE), "1 duplicates, 0 allowed"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_found(case: str) -> None:
    happens, problem = CASES[case]
    ledger = balanced()
    happens(ledger)
    assert any(problem in found for found in ledger.problems(duplicates_allowed=0))
