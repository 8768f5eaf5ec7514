"""Attacks from inside a session on the network: sockets of every family past the proxy, and every way to talk the proxy
into another destination than the one that was decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.escape.runtime import Case, Outcome, Runtime, policy

SOCKETS = r"""
import errno, json, os, socket, sys
port = int(sys.argv[1])
open_sockets, reached = [], []
for family in range(1, 46):
    for kind in range(1, 7):
        for protocol in (0, 1, 6, 17, 33, 132, 136, 255, 262):
            try: socket.socket(family, kind, protocol).close()
            except OSError: continue
            open_sockets.append([family, kind, protocol])
for family, kind, protocol in open_sockets:
    if family not in (socket.AF_INET, socket.AF_INET6): continue
    own = ("127.0.0.1", "0.0.0.0", "10.0.0.1", "1.1.1.1", "169.254.169.254")
    for address in own if family == socket.AF_INET else ("::1", "::ffff:127.0.0.1", "2606:4700::1"):
        for way in ("connect", "fastopen", "sendmsg"):
            with socket.socket(family, kind, protocol) as attempt:
                attempt.settimeout(1)
                try:
                    if way == "connect": attempt.connect((address, port)); attempt.send(b"x")
                    elif way == "fastopen": attempt.sendto(b"x", socket.MSG_FASTOPEN, (address, port))
                    else: attempt.sendmsg([b"x"], [], 0, (address, port))
                except OSError: continue
                reached.append([family, kind, protocol, address, way])
print(json.dumps([open_sockets, reached]))
"""

LOOPBACK = ("127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1")


def escapes(runtime: Runtime) -> int:
    count: int = runtime.upstream.escapes
    return count


def attack(runtime: Runtime, script: str, *arguments: str) -> tuple[Any, Outcome]:
    """Run the script in a session; what it printed, and what the session left. Nothing may have escaped."""
    before = escapes(runtime)
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", script, *arguments), policy()))
    assert outcome.status == 0, outcome.stderr
    assert escapes(runtime) == before
    assert outcome.verified == 0
    return json.loads(outcome.stdout), outcome


@pytest.mark.row(36, 37)
def test_no_socket_of_any_family_reaches_anything_but_the_proxy(runtime: Runtime) -> None:
    (made, reached), outcome = attack(runtime, SOCKETS, str(runtime.upstream.ports["raw"]))
    jailed = runtime.name != "docker"
    near = LOOPBACK if jailed else ()
    captured = [found for found in reached if found[1] == 1 and found[3] not in near]
    if runtime.name != "gvisor":  # whatever is connected to elsewhere has arrived at the egress process, and is refused
        recorded = outcome.of("network.egress_blocked")
        assert sum(event["details"].get("count", 1) for event in recorded) >= len(captured) > 0
        assert {event["details"]["mechanism"] for event in recorded} == {"capture" if jailed else "connect"}
        reached = [found for found in reached if found[1] not in (1, 2) or found[3] in near]
    assert {family for family, _, _ in made} <= {1, 2, 10, 16}  # UNIX, INET, INET6, NETLINK (ROUTE)
    assert {kind for family, kind, _ in made if family in (2, 10)} <= ({1, 2, 3} if jailed else {1})
    # a datagram to the jail's own loopback leaves nothing
    assert [found for found in reached if found[1] != 2 or found[3] not in LOOPBACK] == []


PROXY = r"""
import json, os, socket, sys
from urllib.parse import urlsplit
place = urlsplit(os.environ["HTTPS_PROXY"])
answers = {}
for name, data in json.loads(sys.argv[1]).items():
    with socket.create_connection((place.hostname, place.port), 5) as link:
        link.settimeout(60)
        link.sendall(data.replace("{proxy}", str(place.port)).encode("latin-1"))
        if "half-closed" in name: link.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := link.recv(65536): received += part
        except OSError: received += b" (reset)"
        answers[name] = received.decode("latin-1")
print(json.dumps(answers))
"""

LITERALS = (
    *("127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f.1", "0", "0.0.0.0", "127.0.0.1.", "localhost"),
    *("ip6-localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "10.0.0.1"),
    *("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "metadata.google.internal", "evil.allowed.test"),
    *("allowed.test.evil.test", "forbidden.test"),
)
ODD = (
    *("allowed.test%00.x", "allowed.test%1", "user@allowed.test", "a..b", ".", "-", "xn--allowed", "allowed.test\\x"),
    *("[::1%25lo]", "[::1", "allowed.test:1", "x" * 64 + ".test", "a" * 300),
)


def connect(host: str, port: object, more: str = "") -> str:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{more}\r\n"


def get(url: str, host: str, more: str = "") -> str:
    return f"GET {url} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"


def refused_requests(ports: dict[str, int]) -> dict[str, tuple[str, str]]:
    """Name -> (bytes, how the refusal's status line starts)."""
    raw, http, tls = ports["raw"], ports["http"], ports["tls"]
    allowed, forbidden = f"allowed.test:{http}", f"forbidden.test:{http}"
    url = f"http://{allowed}/"
    post = f"POST {url} HTTP/1.1\r\nHost: {allowed}\r\n"
    cases: dict[str, tuple[str, str]] = {
        "the proxy itself": (connect("127.0.0.1", "{proxy}"), "403"),
        "another host in Host": (get(url, forbidden), "421"),
        "an allowed host in Host": (get(f"http://{forbidden}/", allowed), "421"),
        "two Hosts": (get(url, allowed, f"Host: {forbidden}\r\n"), "400"),
        "two lengths": (f"{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "400"),
        "length and chunks": (f"{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        "an odd coding": (f"{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        "a folded header": (get(url, allowed, "X: a\r\n b\r\n"), "400"),
        "a bare CR": (get(url, allowed, f"X: a\rGET http://{forbidden}/ HTTP/1.1\r\n"), "400"),
        "bare LFs": (f"GET {url} HTTP/1.1\nHost: {allowed}\n\n", "400"),
        "a space before the colon": (f"GET {url} HTTP/1.1\r\nHost : {allowed}\r\n\r\n", "400"),
        "an upgrade": (get(url, allowed, "Connection: upgrade\r\nUpgrade: websocket\r\n"), "403"),
        "origin-form": (get("/", "allowed.test"), "400"),
        "https in absolute-form": (get(f"https://allowed.test:{tls}/", f"allowed.test:{tls}"), "400"),
        "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
        "a CONNECT with a body": (connect("allowed.test", tls, "Content-Length: 2\r\n") + "hi", "400"),
        "a tunnel to a plain port": (connect("allowed.test", http), "403"),
        "a tunnel to another port": (connect("allowed.test", raw), "403"),
    }
    for literal in LITERALS:
        cases[f"connect {literal}"] = (connect(literal, raw), "403")
        cases[f"get {literal}"] = (get(f"http://{literal}:{raw}/", f"{literal}:{raw}"), "403")
    for odd in ODD:
        cases[f"connect {odd}"] = (connect(odd, tls), "400")
        cases[f"get {odd}"] = (get(f"http://{odd}:{http}/", f"{odd}:{http}"), "400")
    return cases


def test_the_proxy_cannot_be_talked_into_another_destination(runtime: Runtime) -> None:
    cases = refused_requests(runtime.upstream.ports)
    answers, outcome = attack(runtime, PROXY, json.dumps({name: data for name, (data, _) in cases.items()}))
    wrong = {
        name: answers[name][:80]
        for name, (_, status) in cases.items()
        if not answers[name].startswith(f"HTTP/1.1 {status} ")
    }
    assert wrong == {}
    recorded = outcome.of("network.egress_blocked")
    assert sum(event["details"].get("count", 1) for event in recorded) == len(cases)
    assert len(outcome.of("network.egress")) <= 1  # the upgrade's, whose host is allowed


def test_each_request_of_a_kept_connection_is_decided(runtime: Runtime) -> None:
    http = runtime.upstream.ports["http"]
    allowed = get(f"http://allowed.test:{http}/", f"allowed.test:{http}")
    forbidden = get(f"http://forbidden.test:{http}/", f"forbidden.test:{http}")
    post = f"POST http://allowed.test:{http}/ HTTP/1.1\r\nHost: allowed.test:{http}\r\n"
    cases = {
        "pipelined": allowed + forbidden,
        "half-closed": allowed + forbidden,
        "behind a body": f"{post}Content-Length: 4\r\n\r\nbody{forbidden}",
        "behind chunks": f"{post}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n{forbidden}",
    }
    answers, outcome = attack(runtime, PROXY, json.dumps(cases))
    for name, answer in answers.items():
        first, _, second = answer.partition("HTTP/1.1 403 Forbidden")
        assert first.startswith("HTTP/1.1 200 OK") or name == "half-closed", (name, answer)
        assert "reached forbidden.test" not in answer, name
        assert second or name == "half-closed", (name, answer)
    recorded = outcome.of("network.egress_blocked")
    assert sum(event["details"].get("count", 1) for event in recorded) >= 3


TUNNELS = r"""
import json, os, socket, ssl, sys
from urllib.parse import urlsplit
place = urlsplit(os.environ["HTTPS_PROXY"])
port = int(sys.argv[1])
def tunnel():
    link = socket.create_connection((place.hostname, place.port), 5)
    link.settimeout(60)
    link.sendall(f"CONNECT allowed.test:{port} HTTP/1.1\r\nHost: allowed.test\r\n\r\n".encode())
    assert b" 200 " in link.recv(4096)
    return link
def named(name):
    secure = ssl._create_unverified_context().wrap_socket(tunnel(), server_hostname=name)
    secure.sendall(b"GET / HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n")
    return b"".join(iter(lambda: secure.recv(4096), b""))
def plain(data):
    with tunnel() as link:
        link.sendall(data)
        return b"".join(iter(lambda: link.recv(4096), b""))
found = {}
for name, act in {
    **{f"allowed {n}": lambda: named("allowed.test") for n in range(8)},
    "another name": lambda: named("forbidden.test"),
    "no name": lambda: named(None),
    "an address": lambda: named("127.0.0.1"),
    "plain": lambda: plain(f"GET / HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n".encode()),
    "a second CONNECT": lambda: plain(b"CONNECT forbidden.test:443 HTTP/1.1\r\n\r\n"),
    "an alert first": lambda: plain(b"\x15\x03\x01\x00\x02\x01\x00"),
    "no hello in a record": lambda: plain(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"),
}.items():
    try: found[name] = act().decode("latin-1")
    except OSError as error: found[name] = type(error).__name__
print(json.dumps(found))
"""


def test_a_tunnel_carries_only_tls_for_the_host_it_was_opened_to(runtime: Runtime) -> None:
    found, outcome = attack(runtime, TUNNELS, str(runtime.upstream.ports["tls"]))
    for n in range(8):  # to its end each time: an end that comes with the last bytes is passed on
        assert "reached allowed.test" in found.pop(f"allowed {n}")
    assert [name for name, answer in found.items() if "reached" in answer or "HTTP" in answer] == []
    assert len(found) == 7
    recorded = outcome.of("network.egress_blocked")
    assert sum(event["details"].get("count", 1) for event in recorded) == 7
    assert {event["details"]["rule"] for event in recorded} <= {
        *("sni-mismatch", "sni-missing", "tls-required", "tls-malformed"),
    }


@pytest.mark.root
def test_the_session_listens_to_nobody_outside(runtime: Runtime) -> None:
    """In the jail what it listens on is the jail's; without one (Docker) it is on loopback, whatever was asked for."""
    script = (
        "import json, os, socket\n"
        "held = []\n"
        "for address in ('0.0.0.0', '127.0.0.1'):\n"
        "    with socket.socket() as one:\n"
        "        one.bind((address, 0)); one.listen(); held.append(one.getsockname()[0])\n"
        "print(json.dumps([held, os.readlink('/proc/self/ns/net')]))\n"
    )
    (held, own), outcome = attack(runtime, script)
    assert held == ["127.0.0.1" if runtime.name == "docker" else "0.0.0.0", "127.0.0.1"]
    (created,) = outcome.of("session.create")
    assert own.startswith("net:[")
    assert created["details"]["levels"]["egress"] == "enforced"
