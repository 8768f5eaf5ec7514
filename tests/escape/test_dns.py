"""Names in the jail: whichever name server a program asks, and however it asks, the answer is the agent's; what is
refused is asked of nobody outside and is on record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.escape.containers import Gvisor
from tests.escape.outside import OTHER, RESOLVER, SERVER, Outside
from tests.escape.runtime import Case, Host, Outcome, policy

pytestmark = pytest.mark.root

RULES = """\
    - {host: raw.test, ports: [9000], protocol: tcp, addresses: [203.0.113.0/24]}
    - {host: "*.wide.test", addresses: [203.0.113.0/24]}
    - {host: forbidden.test, ports: [443]}
"""

SCRIPT = r"""
import json, os, socket, struct, subprocess, sys

def encode(name, kind=1, klass=1, flags=0x0100, more=b"", counts=(1, 0, 0, 0)):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack(">6H", 7, flags, *counts) + labels + b"\0" + struct.pack(">HH", kind, klass) + more

def udp(server, data, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.connect((server, 53))  # an answer from another address would not be taken
        sock.send(data)
        return read(sock.recv(4096))

def tcp(server, data):
    with socket.create_connection((server, 53), 60) as sock:
        sock.sendall(struct.pack(">H", len(data)) + data)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + int.from_bytes(answer[:2], "big"):
            piece = sock.recv(4096)
            if not piece:
                return "ended"
            answer += piece
        return read(answer[2:])

def read(answer):
    return [answer[3] & 15, int.from_bytes(answer[6:8], "big")]

def found(name):
    try:
        return sorted({entry[4][0] for entry in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return error.args[0]

names = ("allowed.test", "secret-bytes.evil.test", "gone.wide.test", "forbidden.test")
out = {"names": {name: found(name) for name in names}}
second = b"\x04evil\x04test\0\0\x01\0\x01"
questions = {
    "allowed": encode("allowed.test"),
    "refused": encode("secret-bytes.evil.test"),
    "TXT": encode("secret-bytes.evil.test", 16),
    "ANY": encode("allowed.test", 255),
    "HTTPS": encode("allowed.test", 65),
    "chaos": encode("allowed.test", klass=3),
    "two": encode("allowed.test", more=second, counts=(2, 0, 0, 0)),
    "junk": encode("allowed.test", more=b"junk"),
}
servers = json.loads(sys.argv[1])
out["udp"] = {server: {what: udp(server, data) for what, data in questions.items()} for server in servers}
out["tcp"] = {server: {what: tcp(server, data) for what, data in questions.items()} for server in servers}
try:
    out["six"] = udp("2001:4860:4860::8888", questions["allowed"], socket.AF_INET6)
except OSError as error:
    out["six"] = type(error).__name__
out["getent"] = subprocess.run(["getent", "ahosts", "allowed.test"], capture_output=True, text=True).stdout.split()[:1]
if "raw.test" in sys.argv:
    with socket.create_connection(("raw.test", 9000), 10) as sock:
        sock.sendall(b"hello\n")
print(json.dumps(out))
"""
SERVERS = ["127.0.0.1", "8.8.8.8", OTHER, RESOLVER]
REFUSED, FORMERR = [5, 0], [1, 0]


@pytest.fixture
def asked(outside_host: Host) -> tuple[dict[str, Any], Outcome, list[str]]:
    """What one session was told, what is on record, and what the name server outside was asked."""
    outside = outside_host.outside
    assert isinstance(outside, Outside)
    before, arrived = len(outside.questions), list(outside.arrived)
    command = ("/usr/bin/python3", "-c", SCRIPT, json.dumps(SERVERS), "raw.test")
    text = policy(extra_egress=RULES).replace("127.0.0.0/8", "203.0.113.0/24")
    outcome = outside_host.run(Case(command, text))
    assert outcome.status == 0, outcome.stderr
    assert outside.arrived == arrived, "not even a question gets where the session sent it"
    assert outcome.verified == 0
    return json.loads(outcome.stdout), outcome, outside.questions[before:]


def test_every_question_of_a_session_is_answered_by_the_agent_and_refused_ones_go_no_further(
    asked: tuple[dict[str, Any], Outcome, list[str]],
) -> None:
    told, outcome, questions = asked
    assert told["names"]["allowed.test"] == [SERVER]
    assert told["names"]["secret-bytes.evil.test"] == -3
    assert told["names"]["gone.wide.test"] == -2
    assert told["names"]["forbidden.test"] == -3, "its address is neither public nor granted"
    assert told["getent"] == [SERVER]
    for way in ("udp", "tcp"):
        for server in SERVERS:
            answers = told[way][server]
            assert answers.pop("allowed") == [0, 1], (way, server)
            assert answers.pop("junk") == FORMERR, (way, server)
            assert set(map(tuple, answers.values())) == {tuple(REFUSED)}, (way, server, answers)
    assert told["six"] in ([0, 1], "OSError")
    names = {question.split()[0] for question in questions}
    assert names == {"allowed.test", "gone.wide.test", "forbidden.test", "raw.test"}
    assert {question.split()[1] for question in questions} <= {"1", "28"}
    check_record(outcome)


def check_record(outcome: Outcome) -> None:
    blocked = outcome.of("network.egress_blocked")
    assert {event["details"]["mechanism"] for event in blocked} == {"dns"}
    rules: dict[tuple[str, str], int] = {}
    for event in blocked:
        key = (event["resource"], event["details"]["rule"])
        rules[key] = rules.get(key, 0) + event["details"].get("count", 1)
    each = 2 * len(SERVERS)
    assert rules[("allowed.test:53", "dns-type")] == 2 * each
    assert rules[("unknown:53", "malformed-request")] == 3 * each
    assert rules[("secret-bytes.evil.test:53", "egress-default")] >= 2 * each
    assert rules[("forbidden.test:53", "egress-address")] >= 1
    (reached,) = outcome.of("network.egress")
    assert reached["resource"] == "raw.test:9000", "the name that the address was told for"
    assert reached["details"]["mechanism"] == "capture"


@pytest.mark.docker
@pytest.mark.gvisor
def test_in_gvisor_the_name_server_at_the_usual_address_is_the_agents(gvisor_sessions: Gvisor) -> None:
    """Older releases make no other address local: there a program with a name server of its own gets no answer."""
    command = ("/usr/bin/python3", "-c", SCRIPT, json.dumps(["127.0.0.1"]))
    outcome = gvisor_sessions.run(Case(command, policy(extra_egress=RULES)))
    assert outcome.status == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    for way in ("udp", "tcp"):
        answers = told[way]["127.0.0.1"]
        assert answers.pop("allowed") == [0, 1], way
        assert answers.pop("junk") == FORMERR, way
        assert set(map(tuple, answers.values())) == {tuple(REFUSED)}, (way, answers)
    resources = {event["resource"] for event in outcome.of("network.egress_blocked")}
    assert {"secret-bytes.evil.test:53", "allowed.test:53", "unknown:53"} <= resources
