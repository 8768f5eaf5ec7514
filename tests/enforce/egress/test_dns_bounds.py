"""The name server among slow names, made-up names, secrets, faults and other modes: what is bounded stays so."""

from __future__ import annotations

import socket
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from agent.enforce.egress.dns import QUESTIONS
from agent.enforce.egress.resolve import NAMES_BELOW, UNDERWAY_BELOW
from agent.enforce.egress.secrets import HeldSecret
from agent.policy.model import HostRule, Mode, Where
from tests.enforce.egress.name_server import (
    ALLOWED,
    GOOD,
    NAMES,
    PLAIN,
    addresses,
    framed,
    info,
    read_framed,
    serving,
)
from tests.enforce.egress.proxy import SECONDS, policy, read_all, rule


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
