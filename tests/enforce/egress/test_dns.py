"""The name server in the real egress process: what is answered, what is refused, and what is asked upstream for it."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.enforce.egress.dns import CONNECTIONS
from agent.enforce.egress.question import MAX_QUERY
from tests.enforce.egress.name_server import (
    ALLOWED,
    GOOD,
    NAMES,
    PLAIN,
    SECOND,
    Server,
    addresses,
    flags_of,
    framed,
    info,
    read_framed,
    serving,
)
from tests.enforce.egress.proxy import SECONDS, read_all

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(ALLOWED, NAMES, tmp_path_factory.mktemp("dns")) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    """Nothing is on record but what the test does: the record of this question comes behind those of earlier ones."""
    last = f"before-{next(NUMBERS)}.evil.test"
    shared.ask(last)
    shared.proxy.event(resource=f"{last}:53")
    with shared.proxy.seen:
        shared.proxy.events.clear()
    Path(shared.proxy.lookups_file).write_text("")
    return shared


@pytest.mark.parametrize(("rdtype", "expected"), [("A", ["127.0.0.5", "127.0.0.6"]), ("AAAA", ["::1"])])
def test_an_allowed_name_is_answered_with_its_addresses_of_the_family(
    server: Server, rdtype: str, expected: list[str]
) -> None:
    answer = server.ask(GOOD, rdtype)
    assert (answer.rcode(), addresses(answer)) == (dns.rcode.NOERROR, expected)
    assert answer.flags & (dns.flags.QR | dns.flags.RA | dns.flags.RD | dns.flags.AA | dns.flags.TC) == (
        dns.flags.QR | dns.flags.RA | dns.flags.RD
    )
    assert 0 <= answer.answer[0].ttl <= 30
    assert not answer.authority
    assert not answer.additional
    assert server.proxy.lookups() in ([], [GOOD])
    assert server.proxy.events == [], "an allowed lookup leaves no line: what it leads to does"


def test_a_name_without_an_address_of_the_family_is_answered_with_nothing(server: Server) -> None:
    answer = server.ask("v4.good.test", "AAAA")
    assert (answer.rcode(), addresses(answer)) == (dns.rcode.NOERROR, [])


def test_an_allowed_name_that_does_not_exist_is_said_not_to_exist(server: Server) -> None:
    assert server.ask("missing.good.test").rcode() == dns.rcode.NXDOMAIN
    assert server.proxy.lookups() == ["missing.good.test"]


@pytest.mark.parametrize("name", ["localhost", socket.gethostname()])
def test_the_machine_s_own_name_is_the_session_s_loopback(server: Server, name: str) -> None:
    assert addresses(server.ask(name)) == ["127.0.0.1"]
    assert addresses(server.ask(name, "AAAA")) == ["::1"]
    other = server.ask(name, "MX")
    assert (other.rcode(), other.answer) == (dns.rcode.NOERROR, [])
    assert (server.proxy.lookups(), server.proxy.events) == ([], []), "programs ask for it all the time"


def test_a_question_s_case_comes_back_as_it_was_and_does_not_matter(server: Server) -> None:
    query = dns.message.make_query("aPi.GOOD.teSt", "A")
    wire = query.to_wire()
    answer = server.raw(wire)
    assert answer[12 : len(wire)] == wire[12:]
    assert addresses(dns.message.from_wire(answer)) == ["127.0.0.5", "127.0.0.6"]


EVIL = [
    "secret-bytes.evil.test",
    "evil.test",
    "good.test",
    "api.good.test.evil.test",
    "wide.test",
    "api.good.test.corp",
]


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "TXT", "ANY", "MX", "PTR", "HTTPS", "SVCB", "NS", "TYPE65000"])
@pytest.mark.parametrize("name", EVIL)
def test_a_name_that_nothing_allows_is_refused_and_asked_of_nobody(server: Server, name: str, rdtype: str) -> None:
    answer = server.ask(name, rdtype)
    assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])
    event = server.proxy.event(resource=f"{name}:53")
    assert (event["type"], event["result"]) == ("network.egress_blocked", "denied")
    details = event["details"]
    assert (details["rule"], details["mechanism"], details["qtype"]) == ("egress-default", "dns", rdtype)
    assert server.proxy.lookups() == []


@pytest.mark.parametrize("rdtype", ["TXT", "ANY", "MX", "PTR", "HTTPS", "SVCB", "CNAME", "NULL", "AXFR", "TYPE65000"])
def test_of_an_allowed_name_only_addresses_are_answered(server: Server, rdtype: str) -> None:
    query = dns.message.make_query(GOOD, rdtype)
    answer = dns.message.from_wire(server.raw(query.to_wire()), ignore_trailing=True)
    assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])
    assert server.proxy.event(resource=f"{GOOD}:53")["details"]["rule"] == "dns-type"
    assert server.proxy.lookups() == []


def test_a_refusal_says_why_to_those_who_can_read_it(server: Server) -> None:
    assert info(server.ask("evil.test")) == []
    ((code, text),) = info(server.ask("evil.test", use_edns=0))
    assert (code, text is not None and text.startswith("egress-default: ")) == (15, True)
    ((code, text),) = info(server.ask(GOOD, "TXT", use_edns=0))
    assert (code, text is not None and text.startswith("dns-type: ")) == (21, True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("turned.good.test", "10.0.0.1 is no public address (private)"), ("metadata.good.test", "(metadata)")],
)
def test_a_name_with_a_forbidden_address_is_refused_whole(server: Server, name: str, reason: str) -> None:
    answer = server.ask(name)
    assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])
    details = server.proxy.event(resource=f"{name}:53")["details"]
    assert details["rule"] == "egress-address"
    assert reason in details["reason"]
    assert "addresses" in details


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (flags_of(PLAIN, 0x0100, 2, 0, 0, 0) + SECOND, dns.rcode.REFUSED),
        (flags_of(PLAIN, 0x2900, 1, 0, 0, 0), dns.rcode.REFUSED),
        (PLAIN[:-2] + b"\0\x03", dns.rcode.REFUSED),  # class CH
        (PLAIN + b"x", dns.rcode.FORMERR),
        (PLAIN[:12] + b"\xc0\x0c\0\x01\0\x01", dns.rcode.FORMERR),
        (PLAIN[:12], dns.rcode.FORMERR),
        (PLAIN[:12] + b"\x0fgood.test.evil.\x04test\0\0\x01\0\x01", dns.rcode.REFUSED),
    ],
)
def test_what_is_no_plain_question_is_refused_and_on_record(server: Server, data: bytes, rcode: int) -> None:
    answer = server.raw(data)
    assert (answer[:2], answer[3] & 0x0F, len(answer)) == (data[:2], rcode, 12)
    assert server.proxy.event(rule="malformed-request")["details"]["mechanism"] == "dns"
    assert server.proxy.lookups() == []


@pytest.mark.parametrize("data", [b"", b"\0" * 11, flags_of(PLAIN, 0x8180, 1, 0, 0, 0)])
def test_what_may_be_no_question_at_all_gets_no_answer(server: Server, data: bytes) -> None:
    with server.send(data) as sock:
        server.proxy.event(rule="malformed-request")
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_an_edns_option_that_the_library_cannot_read_is_malformed(server: Server) -> None:
    option = struct.pack(">HHHBB", 8, 4, 1, 99, 0)  # client subnet (RFC 7871): 99 bits of an IPv4 address
    data = flags_of(PLAIN, 0x0100, 1, 0, 0, 1) + struct.pack(">BHHIH", 0, 41, 1232, 0, len(option)) + option
    answer = server.raw(data)
    assert (answer[3] & 0x0F, len(answer)) == (dns.rcode.FORMERR, 12)
    assert "cannot be read" in server.proxy.event(rule="malformed-request")["details"]["reason"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda tail: PLAIN[:12] + tail)))
def test_no_datagram_crashes_it_or_gets_more_than_a_refusal(server: Server, data: bytes) -> None:
    with server.send(data) as sock:
        sock.send(PLAIN)  # its answer shows that whatever the first one got has been sent
        while (answer := sock.recv(65536))[3] & 0x0F != dns.rcode.NOERROR:
            assert (len(answer), answer[3] & 0x0F in (dns.rcode.FORMERR, dns.rcode.REFUSED)) == (12, True)
        assert answer[:2] == PLAIN[:2]
    assert set(server.proxy.lookups()) <= {GOOD}


def test_an_answer_that_a_datagram_cannot_hold_is_cut_and_comes_over_tcp(server: Server) -> None:
    query = dns.message.make_query("many.good.test", "A")
    every = [f"127.0.1.{number}" for number in range(100)]
    cut = server.over_udp(query)
    assert cut.flags & dns.flags.TC
    assert cut.answer == []
    whole = dns.query.tcp(query, "127.0.0.1", timeout=SECONDS, port=server.port)
    assert addresses(whole) == every, "in the resolver's order"
    large = server.ask("many.good.test", use_edns=0, payload=4096)
    assert (len(addresses(large)), large.flags & dns.flags.TC) == (100, 0)
    assert server.ask("many.good.test", use_edns=0, payload=1232).flags & dns.flags.TC


def test_questions_in_one_stream_are_answered_in_turn_however_they_are_cut(server: Server) -> None:
    queries = [dns.message.make_query(name, "A", id=number) for number, name in enumerate([GOOD, "evil.test", GOOD])]
    stream = b"".join(framed(query.to_wire()) for query in queries)
    for pieces in ([stream], [stream[i : i + 1] for i in range(len(stream))], [stream[:50], stream[50:]]):
        with server.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                sock.sendall(piece)
            answers = [dns.message.from_wire(read_framed(sock)) for _ in queries]
            assert [(answer.id, answer.rcode()) for answer in answers] == [(0, 0), (1, dns.rcode.REFUSED), (2, 0)]
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""


def test_a_stream_that_says_too_long_a_message_is_ended_and_on_record(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(struct.pack(">H", MAX_QUERY + 1))
        assert read_all(sock) == b""
    assert "too long" in server.proxy.event(rule="malformed-request")["details"]["reason"]


def test_more_connections_than_the_bound_are_refused_and_counted_while_the_others_are_served(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(server.connect()) for _ in range(CONNECTIONS)]
        for sock in kept:
            sock.sendall(framed(PLAIN))
            assert read_framed(sock)[3] & 0x0F == 0
        for _ in range(3):
            with server.connect() as over:
                assert read_all(over) == b""
        server.proxy.wait(lambda p: p.recorded("dns-bound") == 3)
        kept[0].sendall(framed(PLAIN))
        assert read_framed(kept[0])[3] & 0x0F == 0
    assert server.ask(GOOD).rcode() == 0


@pytest.mark.row(41)
def test_every_refused_question_of_a_flood_is_counted_and_others_are_answered(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", server.port))
        sock.settimeout(SECONDS)
        for number in range(2000):
            sock.send(dns.message.make_query(f"n{number % 7}.evil.test", "A", id=number).to_wire())
            assert sock.recv(512)[:2] == struct.pack(">H", number)
    server.proxy.wait(lambda p: sum(m["event"]["details"].get("count", 1) for m in p.events) == 2000)
    assert server.ask(GOOD).rcode() == 0
    assert server.proxy.lookups() in ([], [GOOD])
