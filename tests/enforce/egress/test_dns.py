"""The name server in the real egress process: what is answered, what is refused, and what is asked upstream for it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.enforce.egress.dns import CONNECTIONS, QUESTIONS
from agent.enforce.egress.question import MAX_QUERY
from agent.enforce.egress.resolve import NAMES_BELOW, UNDERWAY_BELOW
from agent.enforce.egress.secrets import HeldSecret
from agent.policy.model import HostRule, Mode, Policy, Where
from agent.session.doors import Door
from tests.enforce.egress.proxy import LOOPBACK, SECONDS, Proxy, policy, read_all, rule, running

BOTH = (*LOOPBACK, ip_network("::1/128"))
GOOD = "api.good.test"
NAMES: dict[str, list[list[str]]] = {
    GOOD: [["127.0.0.5", "::1", "127.0.0.6"]],
    "v4.good.test": [["127.0.0.5"]],
    "turned.good.test": [["127.0.0.5", "10.0.0.1"]],
    "metadata.good.test": [["169.254.169.254"]],
    "many.good.test": [[f"127.0.1.{number}" for number in range(100)]],
    "below.wide.test": [["127.0.0.7"]],
}
ALLOWED = policy(
    rule(GOOD, addresses=BOTH),
    *(rule(f"{name}.good.test") for name in ("v4", "turned", "metadata", "many", "missing")),
    rule("*.wide.test"),
)


@dataclass
class Server:
    """The name server and the process that it is part of."""

    proxy: Proxy
    port: int

    def ask(self, name: str, rdtype: str = "A", **how: Any) -> dns.message.Message:
        return self.over_udp(dns.message.make_query(name, rdtype, **how))

    def over_udp(self, query: dns.message.Message) -> dns.message.Message:
        return dns.query.udp(query, "127.0.0.1", timeout=SECONDS, port=self.port, ignore_unexpected=False)

    def send(self, data: bytes) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(SECONDS)
        sock.connect(("127.0.0.1", self.port))
        sock.send(data)
        return sock

    def raw(self, data: bytes) -> bytes:
        with self.send(data) as sock:
            return sock.recv(65536)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)


@contextlib.contextmanager
def serving(
    given: Policy, names: Mapping[str, Sequence[Sequence[str]] | str], tmp_path: Path, **how: Any
) -> Iterator[Server]:
    tcp = socket.create_server(("127.0.0.1", 0), backlog=256)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())
    with tcp, udp, running(given, names, tmp_path, sockets=[(Door.DNS_UDP, udp), (Door.DNS_TCP, tcp)], **how) as proxy:
        yield Server(proxy, tcp.getsockname()[1])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(ALLOWED, NAMES, tmp_path_factory.mktemp("dns")) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    with shared.proxy.seen:
        shared.proxy.events.clear()
    Path(shared.proxy.lookups_file).write_text("")
    return shared


def addresses(answer: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in answer.answer for item in rrset]


def info(answer: dns.message.Message) -> list[tuple[int, str | None]]:
    return [(option.code, option.text) for option in answer.options if isinstance(option, dns.edns.EDEOption)]


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


def flags_of(data: bytes, flags: int, *counts: int) -> bytes:
    return data[:2] + struct.pack(">5H", flags, *counts) + data[12:]


PLAIN = dns.message.make_query(GOOD, "A").to_wire()
SECOND = dns.message.make_query("secret-bytes.evil.test", "A").to_wire()[12:]


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


def framed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def read_framed(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
        piece = sock.recv(2 - len(data) if len(data) < 2 else 2 + int.from_bytes(data[:2]) - len(data))
        assert piece, "the connection ended"
        data += piece
    return data[2:]


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


def test_a_dial_uses_what_was_answered_and_nothing_is_looked_up_twice(tmp_path: Path) -> None:
    names = {GOOD: [["127.0.0.5"], ["10.0.0.1"]]}
    with serving(policy(rule(GOOD, 9)), names, tmp_path) as server:
        assert addresses(server.ask(GOOD)) == ["127.0.0.5"]
        answer = server.proxy.ask(f"CONNECT {GOOD}:9 HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 502 "), "the answered address is dialled; nobody listens there"
        assert server.proxy.lookups() == [GOOD]


def test_names_made_up_below_a_wildcard_are_bounded_and_the_rest_is_refused_and_recorded(tmp_path: Path) -> None:
    made_up = [f"n{number}.wide.test" for number in range(NAMES_BELOW + 5)]
    with serving(ALLOWED, NAMES, tmp_path) as server:
        codes = [server.ask(name).rcode() for name in made_up]
        assert codes == [dns.rcode.NXDOMAIN] * NAMES_BELOW + [dns.rcode.REFUSED] * 5
        assert server.proxy.lookups() == made_up[:NAMES_BELOW]
        assert server.proxy.ask(b"CONNECT one-more.wide.test:443 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        server.proxy.wait(lambda p: p.recorded("dns-bound") == 6)
        assert server.ask(GOOD).rcode() == dns.rcode.NOERROR, "a name that the policy gives in full is not made up"


def test_in_observe_mode_names_are_answered_and_what_would_be_refused_is_recorded(tmp_path: Path) -> None:
    observing = policy(mode=Mode.OBSERVE)
    with serving(observing, {"evil.test": [["127.0.0.5"]]}, tmp_path) as server:
        assert addresses(server.ask("evil.test")) == ["127.0.0.5"]
        event = server.proxy.event(resource="evil.test:53")
        assert (event["result"], event["details"]["enforced"]) == ("success", False)
        assert len(server.proxy.events) == 1


def test_a_host_that_is_denied_on_every_port_is_not_looked_up(tmp_path: Path) -> None:
    def deny(host: str, ports: tuple[int, ...] | None) -> HostRule:
        where = Where("test.yaml", 2, 1)
        return HostRule(id="no-relay", pattern=host, where=where, ports=ports, protocol=None, reason="a relay")

    closed = [deny("relay.wide.test", None), deny("below.wide.test", (22,))]
    with serving(policy(rule("*.wide.test"), deny=closed), NAMES, tmp_path) as server:
        assert server.ask("relay.wide.test").rcode() == dns.rcode.REFUSED
        assert server.proxy.event(resource="relay.wide.test:53")["details"]["rule"] == "no-relay"
        assert addresses(server.ask("below.wide.test")) == ["127.0.0.7"]
        assert server.proxy.lookups() == ["below.wide.test"]


@pytest.mark.parametrize(
    "name",
    [
        "the-placeholder.wide.test",
        "x.the-place.holder.wide.test",
        "Th3-Val.ue.wide.test",
        "api.the-placeholder.evil.test",
    ],
)
def test_a_secret_in_a_name_is_never_looked_up(tmp_path: Path, name: str) -> None:
    held = [HeldSecret("key", "the-placeholder", "Th3-Value")]
    with serving(ALLOWED, NAMES, tmp_path, secrets=held) as server:
        answer = server.ask(name, use_edns=0)
        assert answer.rcode() == dns.rcode.REFUSED
        assert "the secret key" in str(info(answer))
        server.proxy.event(rule="secret-leak", mechanism="dns")
        assert server.proxy.lookups() == []


def test_a_fault_is_a_refusal_on_record_and_the_next_question_is_answered(tmp_path: Path) -> None:
    with serving(ALLOWED, {**NAMES, "missing.good.test": "fault"}, tmp_path) as server:
        for _ in range(2):
            assert server.raw(dns.message.make_query("missing.good.test", "A").to_wire())[3] & 0x0F == dns.rcode.REFUSED
        server.proxy.wait(lambda p: p.recorded("agent-fault") == 2)
        assert server.ask(GOOD).rcode() == dns.rcode.NOERROR


def test_without_its_guard_nothing_is_answered(tmp_path: Path) -> None:
    with serving(ALLOWED, NAMES, tmp_path) as server, server.connect() as stream:
        stream.sendall(framed(PLAIN))
        assert read_framed(stream)[3] & 0x0F == dns.rcode.NOERROR
        server.proxy.channel.sock.shutdown(socket.SHUT_RDWR)
        assert read_all(stream) == b""
        assert server.proxy.process.wait(SECONDS) == 1


def test_it_answers_after_the_rights_are_gone(tmp_path: Path) -> None:
    user = (65534, 65534)
    with serving(ALLOWED, NAMES, tmp_path, user=user) as server:
        assert addresses(server.ask(GOOD, "A", use_edns=0)) == ["127.0.0.5", "127.0.0.6"]
        assert addresses(server.ask(GOOD, "AAAA")) == ["::1"]
        assert server.ask("evil.test", "HTTPS", use_edns=0).rcode() == dns.rcode.REFUSED


def test_slow_names_hold_up_no_others_and_what_waits_is_bounded(tmp_path: Path) -> None:
    slow = {f"s{number}.wide.test": "never" for number in range(40)}
    with serving(ALLOWED, {**NAMES, **slow, "missing.good.test": "never"}, tmp_path) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, server.connect() as silent:
            sock.connect(("127.0.0.1", server.port))
            silent.sendall(b"\0")  # half a length, and nothing more
            for name in slow:
                sock.send(dns.message.make_query(name, "A").to_wire())
            server.proxy.wait(lambda p: p.recorded("dns-bound") == len(slow) - UNDERWAY_BELOW)
            for _ in range(QUESTIONS):
                sock.send(dns.message.make_query("missing.good.test", "A").to_wire())
            server.proxy.wait(lambda p: p.recorded("dns-bound") == len(slow))
            assert server.ask("evil.test").rcode() == dns.rcode.REFUSED
            query = dns.message.make_query("v4.good.test", "A")
            answer = dns.query.tcp(query, "127.0.0.1", timeout=SECONDS, port=server.port)
            assert addresses(answer) == ["127.0.0.5"]
            assert server.ask("v4.good.test").rcode() == dns.rcode.NOERROR, "what is known waits for nothing"
        assert len(server.proxy.lookups()) == UNDERWAY_BELOW + 2
        server.proxy.process.kill()
