"""Whether the world can see a record, judged from what every server said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.common.dns import AllAnswers, Answer, RecordType, ServerAnswer, Status
from services.keys import key_record
from services.keys.key import Key, KeyType
from services.keys.publication import check

_KEY = Key(
    domain="a.test",
    selector="s1",
    key_type=KeyType.ED25519,
    bits=256,
    public="A" * 43 + "=",
    created=datetime(2026, 1, 1, tzinfo=UTC),
)
_NAME = "s1._domainkey.a.test"
_RIGHT = key_record.value(_KEY).encode()
_WRONG = key_record.value(replace(_KEY, public="B" * 43 + "=")).encode()


def _said(*records: bytes, status: Status = Status.OK, detail: str = "") -> Answer:
    return Answer(_NAME, RecordType.TXT, status, records, detail=detail)


_YES = _said(_RIGHT)
_OTHER = _said(_WRONG)
_NO_NAME = _said(status=Status.NXDOMAIN, detail="says that there is no such name")
_NO_DATA = _said(status=Status.NO_DATA)
_SILENT = _said(status=Status.TEMPORARY, detail="no valid answer in 2.0 s")


class _Authority:
    def __init__(self, answers: AllAnswers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, RecordType]] = []

    async def ask_all(self, name: str, rdtype: RecordType) -> AllAnswers:
        self.asked.append((name, rdtype))
        return self.answers


def _all(*answers: Answer, problem: str = "") -> AllAnswers:
    servers = tuple(ServerAnswer(f"ns{n}", answer) for n, answer in enumerate(answers))
    return AllAnswers(_NAME, "a.test", servers, problem)


@pytest.mark.parametrize(
    ("answers", "visible", "denied", "summary"),
    [
        (_all(_YES), True, False, ""),
        (_all(_YES, _YES), True, False, ""),
        (_all(_NO_NAME, _NO_NAME), False, True, "ns0: no such name"),
        (_all(_YES, _NO_DATA), False, True, "ns1: no TXT record"),
        (_all(_YES, _OTHER), False, True, "ns1: it holds another key"),
        (_all(_said(_RIGHT, _WRONG)), False, True, "2 TXT records"),
        # Silence is not an answer: the record may be there or not.
        (_all(_YES, _SILENT), False, False, "ns1: no valid answer"),
        (_all(_SILENT), False, False, "no valid answer"),
        (_all(_NO_DATA, _SILENT), False, True, "no TXT record"),
        (_all(), False, False, ""),
        (_all(problem="no name servers were found"), False, False, "no name servers"),
        (_all(_YES, problem="not all were asked"), False, False, "not all were asked"),
    ],
)
async def test_every_server_has_to_serve_it(
    answers: AllAnswers, visible: bool, denied: bool, summary: str
) -> None:
    authority = _Authority(answers)
    found = await check(authority, _KEY)
    assert authority.asked == [(_NAME, RecordType.TXT)]
    assert (found.visible, found.denied) == (visible, denied)
    assert summary in found.summary
    assert len(found.servers) == len(answers.servers)


@pytest.mark.parametrize(
    ("target", "visible"),
    [
        (_all(_YES, _YES), True),
        (_all(_YES, _NO_NAME), False),
        (_all(problem="the name servers of b.test cannot be looked up"), False),
    ],
)
async def test_an_alias_is_judged_by_where_it_leads(target: AllAnswers, visible: bool) -> None:
    alias = ServerAnswer("ns0", _said(status=Status.NO_DATA), alias="s1.b.test")
    answers = AllAnswers(_NAME, "a.test", (alias,), aliases=(target,))
    found = await check(_Authority(answers), _KEY)
    assert found.visible is visible
    assert found.servers[0].answer == "an alias of s1.b.test"
