"""Judge: many questions over one stream, answered as calls answer them."""

from __future__ import annotations

import signal
import time
import zlib
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from gatepost.policy.v1 import policy_pb2 as pb
from services.common.rpc.auth import Role
from services.policy.conversation import MAX_QUESTIONS
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_cases import ZONE
from tests.support.policy_process import PolicyProcess

METHOD = "gatepost.policy.v1.PolicyService/CheckEnvelope"
SESSION = pb.Session(client_address="192.0.2.1", helo="mx.example.org")
HEADER = b"From: ann@example.org\r\nSubject: hello\r\n"
PATIENT = {"dns": {"attempt_timeout": "4s", "timeout": "4s"}}
"""So long a question about a silent domain is in hand."""

_SECONDS = 20.0


class Stream:
    """A client's end of a stream."""

    def __init__(self, policy: PolicyProcess, role: Role | None = Role.SERVICE) -> None:
        metadata = [("authorization", f"Bearer {policy.token(role)}")] if role else []
        self._requests: SimpleQueue[pb.JudgeRequest | None] = SimpleQueue()
        self._call: Any = policy.checks.Judge(
            iter(self._requests.get, None), metadata=metadata, timeout=_SECONDS
        )

    def send(self, *questions: pb.Question, withdrawn: tuple[int, ...] = ()) -> None:
        self._requests.put(pb.JudgeRequest(questions=questions, withdrawn=withdrawn))

    def end(self) -> None:
        self._requests.put(None)

    def cancel(self) -> None:
        self._call.cancel()

    def receive(self) -> pb.JudgeResponse:
        """The next response. Raises `grpc.RpcError`, and `StopIteration` at the end."""
        response: pb.JudgeResponse = next(self._call)
        return response

    def answers(self, count: int) -> dict[int, pb.QuestionAnswer]:
        """So many answers, by their numbers."""
        found: dict[int, pb.QuestionAnswer] = {}
        while len(found) < count:
            found |= {answer.number: answer for answer in self.receive().answers}
        return found

    def failure(self) -> grpc.StatusCode:
        """The status that the stream ends with."""
        with pytest.raises(grpc.RpcError) as raised:
            self.receive()
        code: grpc.StatusCode = raised.value.code()  # type: ignore[attr-defined]
        return code


def envelope(sender: str = "ann@example.org", **other: Any) -> pb.CheckEnvelopeRequest:
    """A question about an envelope that leaves no trace."""
    asked: dict[str, Any] = {"recipients": ["you@example.test"], "dry_run": True, **other}
    return pb.CheckEnvelopeRequest(session=SESSION, sender=sender, **asked)


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture
def slow(dns: DnsServer, request: pytest.FixtureRequest) -> str:
    """A sender whose domain's servers are silent, and of whom nobody has asked yet."""
    domain = f"{zlib.crc32(request.node.name.encode()):x}.example"
    dns.timeout.add(domain)
    return f"x@{domain}"


@pytest.fixture
def make_policy(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, dns: DnsServer
) -> Callable[[], PolicyProcess]:
    folder = tmp_path_factory.mktemp("policy")
    return lambda: PolicyProcess(folder, nats_url=nats_server.url, dns=dns.address, config=PATIENT)


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, dns: DnsServer
) -> Iterator[PolicyProcess]:
    folder = tmp_path_factory.mktemp("policy")
    with PolicyProcess(
        folder, nats_url=nats_server.url, dns=dns.address, config=PATIENT
    ) as process:
        yield process


def test_the_answers_are_those_of_calls(policy: PolicyProcess) -> None:
    envelopes = [
        envelope(),
        envelope(sender=""),
        envelope(sender="x@deny.example"),
        envelope(recipients=["nobody@elsewhere.example", "you@example.test"]),
    ]
    header = pb.HeaderAndDigests(header_block=HEADER, size=len(HEADER) + 2)
    message = pb.CheckMessageRequest(
        session=SESSION,
        sender="ann@example.org",
        recipients=["you@example.test"],
        header=header,
        dry_run=True,
    )
    questions = [pb.Question(number=n, envelope=each) for n, each in enumerate(envelopes)]
    stream = Stream(policy)

    stream.send(*questions[:3])
    stream.send(questions[3], pb.Question(number=7, timeout_ms=5000, message=message))
    answers = stream.answers(5)

    for number, asked in enumerate(envelopes):
        called = policy.call(policy.checks.CheckEnvelope, asked)
        assert _timeless(answers[number].envelope) == _timeless(called)
    called = policy.call(policy.checks.CheckMessage, message)
    assert _timeless(answers[7].message) == _timeless(called)
    stream.end()
    with pytest.raises(StopIteration):
        stream.receive()


def test_what_is_wrong_with_a_question_is_its_own_answer(policy: PolicyProcess) -> None:
    stream = Stream(policy)

    stream.send(
        pb.Question(number=1, envelope=envelope(recipients=[])),
        pb.Question(number=2),
        pb.Question(number=3, envelope=envelope()),
    )
    answers = stream.answers(3)

    with pytest.raises(grpc.RpcError) as raised:
        policy.call(policy.checks.CheckEnvelope, envelope(recipients=[]))
    assert answers[1].failure.text == raised.value.details()  # type: ignore[attr-defined]
    assert answers[1].failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answers[2].failure.reason == "INVALID_REQUEST"
    assert answers[3].envelope.verdict.action
    stream.end()


@pytest.mark.parametrize(
    "numbers",
    [pytest.param([*range(MAX_QUESTIONS + 1)], id="too many"), pytest.param([5, 5], id="in use")],
)
def test_a_request_that_breaks_the_rules_ends_the_stream(
    policy: PolicyProcess, slow: str, numbers: list[int]
) -> None:
    stream = Stream(policy)

    stream.send(*(pb.Question(number=n, envelope=envelope(slow)) for n in numbers))

    assert stream.failure() is grpc.StatusCode.INVALID_ARGUMENT
    _await(lambda: policy.metric("gatepost_rpc_in_progress", budget="unary") == 0)


def test_octets_that_are_no_request_end_the_stream(policy: PolicyProcess) -> None:
    metadata = [("authorization", f"Bearer {policy.token(Role.SERVICE)}")]
    with grpc.insecure_channel(policy.target) as channel:
        judge = channel.stream_stream("/gatepost.policy.v1.PolicyService/Judge")
        with pytest.raises(grpc.RpcError) as raised:
            next(judge(iter([b"\xff"]), metadata=metadata, timeout=_SECONDS))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_an_empty_request_is_answered_at_once(policy: PolicyProcess, slow: str) -> None:
    stream = Stream(policy)

    stream.send(pb.Question(number=1, envelope=envelope(slow)))
    stream.send()

    assert stream.receive() == pb.JudgeResponse()
    stream.cancel()


@pytest.mark.parametrize(
    ("role", "code"),
    [(None, grpc.StatusCode.UNAUTHENTICATED), (Role.VIEWER, grpc.StatusCode.PERMISSION_DENIED)],
    ids=["nobody", "viewer"],
)
def test_a_stream_is_for_services_and_operators(
    policy: PolicyProcess, role: Role | None, code: grpc.StatusCode
) -> None:
    stream = Stream(policy, role)
    stream.send()
    assert stream.failure() is code


def test_a_question_counts_as_a_call(policy: PolicyProcess) -> None:
    def counted() -> float:
        return policy.metric("gatepost_rpc_requests_total", method=METHOD, code="OK")

    before = counted()
    stream = Stream(policy)

    stream.send(pb.Question(number=1, envelope=envelope()))
    stream.answers(1)

    assert counted() == before + 1
    stream.end()


def test_a_question_that_is_withdrawn_gets_no_answer(policy: PolicyProcess, slow: str) -> None:
    stream = Stream(policy)

    stream.send(pb.Question(number=1, envelope=envelope(slow)), withdrawn=(2,))
    stream.send(withdrawn=(1,))
    stream.send(pb.Question(number=2, envelope=envelope()))
    stream.end()

    assert [answer.number for answer in stream.receive().answers] == [2]
    with pytest.raises(StopIteration):
        stream.receive()
    _await(lambda: policy.metric("gatepost_rpc_in_progress", budget="unary") == 0)


def test_questions_go_with_their_stream(policy: PolicyProcess, slow: str) -> None:
    stream = Stream(policy)
    stream.send(pb.Question(number=1, envelope=envelope(slow)))
    _await(lambda: policy.metric("gatepost_rpc_in_progress", budget="unary") == 1)

    stream.cancel()

    _await(lambda: policy.metric("gatepost_rpc_in_progress", budget="unary") == 0)


def test_a_replica_that_stops_answers_what_it_was_asked(
    make_policy: Callable[[], PolicyProcess], slow: str
) -> None:
    with make_policy() as policy:
        stream = Stream(policy)
        stream.send()
        stream.receive()
        stream.send(pb.Question(number=1, envelope=envelope(slow)))
        stream.send()
        stream.receive()

        policy.signal(signal.SIGTERM)
        assert stream.receive().closing
        # The client did not know yet.
        stream.send(pb.Question(number=2, envelope=envelope()))

        answers = stream.answers(2)
        assert [answers[number].WhichOneof("response") for number in (1, 2)] == ["envelope"] * 2
        stream.end()
        with pytest.raises(StopIteration):
            stream.receive()


def _timeless(
    response: pb.CheckEnvelopeResponse | pb.CheckMessageResponse,
) -> pb.CheckEnvelopeResponse | pb.CheckMessageResponse:
    """Without how long the checks took."""
    verdicts = [response.verdict]
    if isinstance(response, pb.CheckEnvelopeResponse):
        verdicts += [each.verdict for each in response.recipients]
    for verdict in verdicts:
        for result in verdict.check_results:
            result.ClearField("elapsed")
    return response


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
