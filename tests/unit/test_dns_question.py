"""The question that we write ourselves is the one that the library would write, octet for octet."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from services.common.dns import RecordType
from services.common.dns.exchange import UDP_PAYLOAD, Question
from services.common.dns.reply import name_of

FLAGS = dns.flags.RD | dns.flags.AD
NAME = "a.example.test"


def question(
    name: str = NAME, rdtype: RecordType = RecordType.MX, *, edns: bool = True
) -> Question:
    return Question.of(name_of(name), rdtype, flags=FLAGS, edns=edns)


def answer_to(asked: Question) -> dns.message.Message:
    return dns.message.make_response(dns.message.from_wire(asked.wire))


@pytest.mark.parametrize("edns", [True, False], ids=["edns", "plain"])
@pytest.mark.parametrize("name", [".", NAME, "_dmarc.xn--bcher-kva.example"])
@pytest.mark.parametrize("rdtype", list(RecordType))
def test_as_the_library_writes_it(name: str, rdtype: RecordType, edns: bool) -> None:
    asked = question(name, rdtype, edns=edns)
    expected = dns.message.make_query(
        name_of(name),
        dns.rdatatype.from_text(rdtype),
        use_edns=edns,
        payload=UDP_PAYLOAD if edns else None,
        flags=FLAGS,
        id=asked.number,
    )
    assert asked.wire == expected.to_wire()


def test_numbers_differ() -> None:
    assert len({question().number for _ in range(100)}) > 50


def test_an_answer() -> None:
    asked = question()
    assert asked.is_answered_by(answer_to(asked))


def test_letter_case_does_not_matter() -> None:
    asked = question(NAME.upper())
    answer = answer_to(question())
    answer.id = asked.number
    assert asked.is_answered_by(answer)


@pytest.mark.parametrize(
    "other", [question("b.example.test"), question(rdtype=RecordType.TXT)], ids=["name", "type"]
)
def test_an_answer_to_another_question(other: Question) -> None:
    asked, answer = question(), answer_to(other)
    answer.id = asked.number
    assert not asked.is_answered_by(answer)


def test_an_answer_with_another_number() -> None:
    asked = question()
    answer = answer_to(asked)
    answer.id ^= 1
    assert not asked.is_answered_by(answer)


def test_a_question_is_no_answer() -> None:
    asked = question()
    assert not asked.is_answered_by(dns.message.from_wire(asked.wire))


@pytest.mark.parametrize(
    ("rcode", "counts"),
    [
        (dns.rcode.FORMERR, True),
        (dns.rcode.SERVFAIL, True),
        (dns.rcode.NOERROR, False),
        (dns.rcode.NXDOMAIN, False),
    ],
    ids=["formerr", "servfail", "noerror", "nxdomain"],
)
def test_without_a_question_only_a_failure_counts(rcode: dns.rcode.Rcode, counts: bool) -> None:
    asked = question()
    answer = answer_to(asked)
    answer.question.clear()
    answer.set_rcode(rcode)
    assert asked.is_answered_by(answer) is counts
