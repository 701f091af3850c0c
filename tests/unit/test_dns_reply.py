"""What DNS messages say, message by message."""

from ipaddress import IPv4Address, IPv6Address

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.dns import MxRecord, Record, SoaRecord, Status, TlsaRecord
from services.common.dns.reply import Reply, name_of, read_reply

SOA = ". 600 IN SOA ns.test. host.test. 7 1 2 3 90"


def message(
    answer: tuple[str, ...] = (),
    authority: tuple[str, ...] = (),
    *,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    rdtype: str = "A",
    flags: dns.flags.Flag = dns.flags.RA,
) -> dns.message.QueryMessage:
    query = dns.message.make_query("a.test.", rdtype, use_edns=True)
    response = dns.message.make_response(query)
    assert isinstance(response, dns.message.QueryMessage)
    response.set_rcode(rcode)
    response.flags |= flags
    response.answer += [rrset(line) for line in answer]
    response.authority += [rrset(line) for line in authority]
    return response


def rrset(line: str) -> dns.rrset.RRset:
    owner, ttl, _, rdtype, value = line.split(maxsplit=4)
    return dns.rrset.from_text(owner, int(ttl), "IN", rdtype, *value.split(" | "))


def read(response: dns.message.Message) -> Reply:
    # Over the wire and back: what the parser makes of it counts, not what was put in.
    return read_reply(dns.message.from_wire(response.to_wire()), name_of("a.test"))


@pytest.mark.parametrize(
    ("rdtype", "value", "record"),
    [
        ("A", "192.0.2.1", IPv4Address("192.0.2.1")),
        ("AAAA", "2001:DB8::1", IPv6Address("2001:db8::1")),
        ("MX", "10 MX.Example.Test.", MxRecord(10, "mx.example.test")),
        ("MX", "0 .", MxRecord(0, ".")),
        ("TXT", r'"v=spf1 " "-all" "" "\255\000"', b"v=spf1 -all\xff\x00"),
        ("TXT", '""', b""),
        ("CNAME", "B.Test.", "b.test"),
        ("NS", "Ns.Test.", "ns.test"),
        ("PTR", "Host.Test.", "host.test"),
        ("PTR", r"a\010b\.c\032d.test.", r"a\010b\.c\032d.test"),
        ("TLSA", "3 1 0 0a0B", TlsaRecord(3, 1, 0, b"\x0a\x0b")),
        ("SOA", "Ns.Test. host.test. 7 1 2 3 90", SoaRecord("ns.test", 7, 90)),
    ],
)
def test_records_become_values(rdtype: str, value: str, record: Record) -> None:
    reply = read(message((f"a.test. 300 IN {rdtype} {value}",), rdtype=rdtype))
    assert reply == Reply(Status.OK, name_of("a.test"), (record,), ttl=300)


def test_an_alias_is_followed_in_the_message_and_the_shortest_ttl_counts() -> None:
    reply = read(
        message(
            (
                "a.test. 300 IN CNAME b.test.",
                "b.test. 20 IN CNAME c.test.",
                "c.test. 60 IN A 192.0.2.1",
            )
        )
    )
    assert (reply.status, reply.target, reply.ttl) == (Status.OK, name_of("c.test"), 20)
    assert reply.records == (IPv4Address("192.0.2.1"),)


@pytest.mark.parametrize(
    ("response", "status", "ttl", "open_ended"),
    [
        (message((), (SOA,)), Status.NO_DATA, 90, False),
        (message((), (SOA, "test. 600 IN NS ns.test.")), Status.NO_DATA, 90, False),
        (message(), Status.NO_DATA, 0, False),
        (message((), (SOA,), rcode=dns.rcode.NXDOMAIN), Status.NXDOMAIN, 90, False),
        (message(rcode=dns.rcode.NXDOMAIN), Status.NXDOMAIN, 0, False),
        (message(("a.test. 9 IN CNAME b.test.",), (SOA,)), Status.NO_DATA, 9, False),
        (message(("a.test. 9 IN CNAME b.test.",)), Status.NO_DATA, 9, True),
        (
            message(("a.test. 9 IN CNAME b.test.",), (SOA,), rcode=dns.rcode.NXDOMAIN),
            Status.NXDOMAIN,
            9,
            False,
        ),
        # An answer about another name is none.
        (message(("b.test. 9 IN A 192.0.2.1",), (SOA,)), Status.NO_DATA, 90, False),
    ],
)
def test_there_are_two_kinds_of_no(
    response: dns.message.Message, status: Status, ttl: int, open_ended: bool
) -> None:
    reply = read(response)
    assert (reply.status, reply.ttl, reply.open_ended) == (status, ttl, open_ended)
    assert reply.records == ()


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (message(rcode=dns.rcode.SERVFAIL), "says SERVFAIL"),
        (message(rcode=dns.rcode.REFUSED), "says REFUSED"),
        (message(rcode=dns.rcode.BADVERS), "says BADVERS"),
        (message((), ("test. 9 IN NS ns.test.",)), "refers to other servers"),
        (
            message(("a.test. 9 IN CNAME b.test.", "b.test. 9 IN CNAME a.test.")),
            "a CNAME loop",
        ),
        (
            message(("a.test. 9 IN A 192.0.2.1",), rcode=dns.rcode.NXDOMAIN),
            "contradicts itself",
        ),
    ],
)
def test_what_makes_no_sense_is_temporary(response: dns.message.Message, said: str) -> None:
    reply = read(response)
    assert reply.status is Status.TEMPORARY
    assert said in reply.detail


def test_the_servers_reason_is_told_in_printable_words() -> None:
    response = message(rcode=dns.rcode.SERVFAIL)
    response.use_edns(
        options=[
            dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "no key\r\nfor a.test " + "x" * 200)
        ]
    )
    detail = read(response).detail
    assert detail.startswith("says SERVFAIL (DNSSEC_BOGUS no key??for a.test xxx")
    assert detail.isprintable()
    assert len(detail) < 150


@pytest.mark.parametrize("flags", [dns.flags.RA, dns.flags.RA | dns.flags.AD])
def test_only_the_server_can_say_that_an_answer_is_authentic(flags: dns.flags.Flag) -> None:
    reply = read(message(("a.test. 9 IN A 192.0.2.1",), flags=flags))
    assert reply.authentic is bool(flags & dns.flags.AD)


INTACT = message(
    ("a.test. 300 IN CNAME b.test.", "b.test. 20 IN MX 10 m.test. | 0 ."), (SOA,), rdtype="MX"
).to_wire()


# The type of question and answer made 0, which no record has.
@example([(21, 0), (61, 0)])
@given(st.lists(st.tuples(st.integers(12, len(INTACT) - 1), st.integers(0, 255)), max_size=8))
def test_no_message_that_can_be_parsed_breaks_the_reader(changes: list[tuple[int, int]]) -> None:
    wire = bytearray(INTACT)
    for place, octet in changes:
        wire[place] = octet
    try:
        parsed = dns.message.from_wire(bytes(wire))
    except Exception:  # noqa: BLE001 - the parser's own business; the exchange takes it for junk
        return
    reply = read_reply(parsed, name_of("a.test"))
    assert (reply.status is Status.OK) == bool(reply.records)
