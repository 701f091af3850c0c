"""What SPF came to is given again only while nothing that it depends on is another."""

import pytest

from services.common.dns import Answer, MxRecord, Record, RecordType, Status
from services.policy.spf_evaluation import SpfOutcome, SpfRequest, check_host
from services.policy.spf_memory import MAX_ENTRIES, MAX_OCTETS, MAX_RECORDS, SpfMemory


class Known:
    """A resolver that gives the same object for as long as nothing is changed."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = {name: txt(name, text) for name, text in answers.items()}
        self.asked: list[str] = []

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        known = self.cached(name, rdtype)
        assert known is not None
        return known

    def cached(self, name: str, rdtype: RecordType) -> Answer | None:
        self.asked.append(name)
        return self.answers.get(name)


def txt(name: str, text: str) -> Answer:
    return Answer(name, RecordType.TXT, Status.OK, (text.encode(),))


async def evaluate(
    resolver: Known,
    *,
    client: str = "192.0.2.1",
    local_part: str = "a",
    domain: str = "a.test",
    helo: str = "mx.test",
) -> SpfOutcome:
    request = SpfRequest(
        client=client, local_part=local_part, domain=domain, helo=helo, receiver="us.test"
    )
    return await check_host(request, resolver)


async def test_the_same_records_give_the_same_outcome_to_every_sender_of_a_domain() -> None:
    resolver = Known({"a.test": "v=spf1 include:b.test -all", "b.test": "v=spf1 ip4:192.0.2.1"})
    first = await evaluate(resolver)
    again = await evaluate(resolver, local_part="b", helo="other.test")
    assert first.result == "pass"
    assert again is first
    assert resolver.asked == ["a.test", "b.test"] * 2, "each answer is asked for once in each"


async def test_another_client_is_judged_anew() -> None:
    resolver = Known({"a.test": "v=spf1 ip4:192.0.2.1 -all"})
    assert (await evaluate(resolver)).result == "pass"
    assert (await evaluate(resolver, client="192.0.2.9")).result == "fail"


@pytest.mark.parametrize("changed", ["a.test", "b.test"])
async def test_a_record_that_changed_counts_at_once(changed: str) -> None:
    resolver = Known({"a.test": "v=spf1 include:b.test -all", "b.test": "v=spf1 ip4:192.0.2.1"})
    assert (await evaluate(resolver)).result == "pass"
    resolver.answers[changed] = txt(changed, "v=spf1 ip4:192.0.2.9 -all")
    resolver.asked.clear()
    outcome = await evaluate(resolver)
    assert outcome.result == "fail"
    way = ["a.test"] if changed == "a.test" else ["a.test", "b.test"]
    assert [answer.name for answer in outcome.answers] == way
    assert all(answer is resolver.answers[answer.name] for answer in outcome.answers)
    assert resolver.asked == way, "what was found to be good is not asked for again"


@pytest.mark.parametrize(
    ("record", "pairs"),
    [
        ("v=spf1 exists:%{l}.b.test -all", ({"local_part": "a"}, {"local_part": "b"})),
        ("v=spf1 exists:%{h}.b.test -all", ({"helo": "a"}, {"helo": "b"})),
    ],
    ids=["local part", "helo"],
)
async def test_what_macros_put_into_a_name_is_looked_at(
    record: str, pairs: tuple[dict[str, str], dict[str, str]]
) -> None:
    resolver = Known({"a.test": record})
    listed = Answer("a.b.test", RecordType.A, Status.OK, ("127.0.0.2",))
    resolver.answers["a.b.test"] = listed
    resolver.answers["b.b.test"] = Answer("b.b.test", RecordType.A, Status.NXDOMAIN)
    one, other = pairs
    assert (await evaluate(resolver, **one)).result == "pass"
    assert (await evaluate(resolver, **other)).result == "fail"


def mx(count: int) -> tuple[Record, ...]:
    return tuple(MxRecord(number, "mx.test") for number in range(count))


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        ((b"v=spf1 -all",), 1),
        ((b"v=spf1 exp=%{d} -all",), 0),
        ((b"x" * MAX_OCTETS,), 1),
        ((b"x" * MAX_OCTETS, b"x"), 0),
        (mx(MAX_RECORDS), 1),
        (mx(MAX_RECORDS + 1), 0),
    ],
    ids=["plain", "macro", "large", "too large", "many", "too many"],
)
def test_only_plain_and_small_records_are_kept(records: tuple[Record, ...], kept: int) -> None:
    memory: SpfMemory[str] = SpfMemory()
    answer = Answer("a.test", RecordType.TXT, Status.OK, records)
    memory.keep(("192.0.2.1", "a.test"), "pass", (answer,))
    assert len(memory) == kept


def test_there_are_only_so_many_entries() -> None:
    memory: SpfMemory[str] = SpfMemory()
    resolver = Known({"a.test": "v=spf1 -all"})
    answers = (resolver.answers["a.test"],)
    for number in range(MAX_ENTRIES + 1):
        memory.keep((str(number), "a.test"), "fail", answers)
    assert len(memory) == MAX_ENTRIES
    assert memory.recall(("0", "a.test"), resolver) == (None, [])
    assert memory.recall((str(MAX_ENTRIES), "a.test"), resolver) == ("fail", list(answers))
