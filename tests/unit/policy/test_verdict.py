"""The combination of results: every pair of actions and standings, and who decides."""

from dataclasses import replace
from itertools import permutations, product

import pytest

from services.common.mail.reply import OK, Reply
from services.policy.action import Action
from services.policy.checks.check import Check, Finding, Means, Standing
from services.policy.verdict import ActionTable, Result, decide

NO = Reply(550, "5.7.1", "No")
LATER = Reply(451, "4.7.1", "Later")
ACTIONS = tuple(Action)
STANDINGS = tuple(Standing)


async def never(subject: object, means: Means) -> Finding:
    raise NotImplementedError


def result(check: str, action: Action, standing: Standing = Standing.OBJECTS) -> Result:
    return Result(check, "fail", standing, action, LATER if action is Action.DEFER else NO)


def test_without_results_mail_is_taken() -> None:
    verdict = decide([])
    assert (verdict.action, verdict.reply, verdict.decisive) == (Action.ACCEPT, OK, "")


@pytest.mark.parametrize(("first", "second"), list(product(product(ACTIONS, STANDINGS), repeat=2)))
def test_every_pair(first: tuple[Action, Standing], second: tuple[Action, Standing]) -> None:
    results = [result("first", *first), result("second", *second)]
    counting = {
        check: action
        for check, (action, standing) in (("first", first), ("second", second))
        if standing in (Standing.OBJECTS, Standing.UNKNOWN)
    }
    strongest = max(counting.values(), default=Action.ACCEPT)
    vouchers = [
        check
        for check, (_, standing) in (("first", first), ("second", second))
        if standing is Standing.VOUCHES
    ]
    verdict = decide(results)
    if strongest is Action.ACCEPT:
        assert (verdict.action, verdict.decisive) == (Action.ACCEPT, "")
    elif vouchers:
        assert (verdict.action, verdict.decisive) == (Action.ACCEPT, vouchers[0])
    else:
        decisive = next(check for check, action in counting.items() if action is strongest)
        assert (verdict.action, verdict.decisive) == (strongest, decisive)


def test_nothing_vouches_for_a_recipient() -> None:
    voucher = result("allow", Action.ACCEPT, Standing.VOUCHES)
    unknown = replace(result("recipient", Action.REFUSE), binding=True)
    verdict = decide([voucher, result("spf", Action.REFUSE), unknown])
    assert (verdict.action, verdict.decisive) == (Action.REFUSE, "recipient")


@pytest.mark.parametrize("order", list(permutations(ACTIONS)))
def test_refuse_then_defer_then_spam_then_accept_in_any_order(order: tuple[Action, ...]) -> None:
    left = list(order)
    for expected in (Action.REFUSE, Action.DEFER, Action.SPAM, Action.ACCEPT):
        assert decide([result(a.name, a) for a in left]).action is expected
        left.remove(expected)


@pytest.mark.parametrize(
    ("action", "reply"),
    [(Action.ACCEPT, OK), (Action.SPAM, OK), (Action.DEFER, LATER), (Action.REFUSE, NO)],
)
def test_the_reply_goes_with_the_action(action: Action, reply: Reply) -> None:
    assert decide([result("check", action)]).reply == reply


def test_of_equals_the_first_decides() -> None:
    verdict = decide([result("a", Action.SPAM), result("b", Action.SPAM)])
    assert verdict.decisive == "a"


@pytest.mark.parametrize(
    ("standing", "on_error", "action", "objects"),
    [
        (Standing.CLEAR, Action.DEFER, Action.REFUSE, False),
        (Standing.OBJECTS, Action.DEFER, Action.REFUSE, True),
        (Standing.UNKNOWN, Action.DEFER, Action.DEFER, True),
        (Standing.UNKNOWN, Action.SPAM, Action.SPAM, True),
        (Standing.UNKNOWN, Action.ACCEPT, Action.ACCEPT, False),
    ],
)
def test_what_cannot_be_told_follows_on_error(
    standing: Standing, on_error: Action, action: Action, objects: bool
) -> None:
    table = ActionTable({"check": Action.REFUSE}, {"check": on_error})
    check = Check(name="check", find=never, refusal=NO, deferral=LATER)
    found = table.judged(Finding("x", standing, ""), check)
    assert (found.action, found.objects) == (action, objects)


def test_recipients_under_different_rules_get_the_stronger_action_of_each_check() -> None:
    one = ActionTable({"a": Action.SPAM, "b": Action.REFUSE}, {})
    other = ActionTable({"a": Action.REFUSE, "b": Action.ACCEPT}, {})
    assert one.strictest(other).actions == {"a": Action.REFUSE, "b": Action.REFUSE}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("bücher.example permits you.", "bücher.example permits you."),
        ("a\r\nb\tc permits you.", "a  b c permits you."),
        ("\x1b[2Jx\x00\u202e permits you.", "?[2Jx?? permits you."),
        ("x" * 5000, "x" * 997 + "..."),
        ("ü" * 5000, "ü" * 498 + "..."),
    ],
    ids=["letters", "lines", "controls", "long", "long letters"],
)
def test_an_explanation_is_one_printable_line(said: str, shown: str) -> None:
    table = ActionTable({}, {})
    check = Check(name="spf", find=never, refusal=NO)
    assert table.judged(Finding("none", Standing.CLEAR, said), check).explanation == shown
