"""Sessions without a network namespace (Docker's default profile): programs that know no proxy, the session's own
servers, services beside it on loopback, and every way to a socket past the guard."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import require
from tests.escape.containers import Docker
from tests.escape.runtime import Case, Outcome, policy

pytestmark = [pytest.mark.root, pytest.mark.docker]

PRELUDE = r"""
import contextlib, json, os, socket, ssl, struct, sys, threading
http, tls, raw = (int(word) for word in sys.argv[1:4])
found = {}
def attempt(name, call):
    try: found[name] = call()
    except OSError as error: found[name] = type(error).__name__ + (f" {error.errno}" if error.errno else "")
def talk(address, data, wrap=None):
    with socket.create_connection(address, 10) as link:
        if wrap:
            trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
            link = trust.wrap_socket(link, server_hostname=wrap)
        if data: link.sendall(data)
        received = b""
        while part := link.recv(65536):
            received += part
            if b"reached" in part or b"</html>" in part: break
        return received.decode("latin-1").splitlines()[-1] if received else "closed"
def get(host): return f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
"""


def inside(docker: Docker, script: str, *, rules: str = "") -> tuple[dict[str, Any], Outcome]:
    """Run the script in a session; what it found."""
    ports = [str(docker.upstream.ports[name]) for name in ("http", "tls", "raw")]
    command = ("/usr/bin/python3", "-c", PRELUDE + script + "\nprint(json.dumps(found))", *ports)
    outcome = docker.run(Case(command, policy(extra_egress=rules), flags=("--require", "contained")))
    assert outcome.status == 0, outcome.stderr
    return json.loads(outcome.stdout), outcome


def denied(outcome: Outcome) -> list[dict[str, Any]]:
    return [event for event in outcome.of("network.egress_blocked") if event["result"] == "denied"]


DIRECT = r"""
attempt("http allowed", lambda: talk(("127.0.0.1", http), get(f"allowed.test:{http}")))
attempt("http forbidden", lambda: talk(("127.0.0.1", http), get(f"forbidden.test:{http}")))
attempt("http allowed, address of nobody", lambda: talk(("192.0.2.7", http), get(f"allowed.test:{http}")))
attempt("tls allowed", lambda: talk(("allowed.test", tls), get("allowed.test"), "allowed.test"))
attempt("tls forbidden", lambda: talk(("forbidden.test", tls), get("forbidden.test"), "forbidden.test"))
attempt("raw", lambda: talk(("127.0.0.1", raw), b""))
attempt("raw by IPv6", lambda: talk(("::ffff:127.0.0.1", raw), b""))
"""


def test_programs_that_know_no_proxy_are_decided_like_any_other(docker_sessions: Docker) -> None:
    found, outcome = inside(docker_sessions, DIRECT)
    http = docker_sessions.upstream.ports["http"]
    assert found["http allowed"] == found["http allowed, address of nobody"] == f"reached allowed.test:{http}"
    assert found["tls allowed"] == "reached allowed.test"
    for name in ("http forbidden", "tls forbidden", "raw", "raw by IPv6"):
        assert "reached" not in found[name], name
    assert docker_sessions.upstream.escapes == 0
    blocked = denied(outcome)
    assert sum(event["details"].get("count", 1) for event in blocked) == 4
    assert {event["details"]["mechanism"] for event in blocked} == {"connect"}
    assert {event["details"]["rule"] for event in blocked} == {"egress-default"}
    assert all(event["details"]["pid"] for event in blocked)


def test_a_service_on_loopback_is_reached_where_a_rule_grants_it(docker_sessions: Docker) -> None:
    rules = "    - {host: 127.0.0.1, ports: [{raw}], protocol: tcp, addresses: [127.0.0.0/8]}\n"
    found, outcome = inside(docker_sessions, 'attempt("raw", lambda: talk(("127.0.0.1", raw), b""))', rules=rules)
    assert found == {"raw": "closed"}
    assert docker_sessions.upstream.escapes == 1
    assert denied(outcome) == []


SERVERS = r"""
def serve(family, wanted, host):
    server = socket.socket(family)
    server.bind((wanted, 0)); server.listen()
    def answer():
        peer, _ = server.accept()
        peer.sendall(b"own reached"); peer.close()
    threading.Thread(target=answer, daemon=True).start()
    return talk((host, server.getsockname()[1]), b"")
attempt("0.0.0.0", lambda: serve(socket.AF_INET, "0.0.0.0", "127.0.0.1"))
attempt("127.0.0.1", lambda: serve(socket.AF_INET, "127.0.0.1", "127.0.0.1"))
attempt("::", lambda: serve(socket.AF_INET6, "::", "127.0.0.1"))
def listening():
    server = socket.socket(); server.bind(("0.0.0.0", 0)); server.listen()
    return server.getsockname()[0]
attempt("where", listening)
"""


def test_the_sessions_own_servers_work_and_listen_on_loopback(docker_sessions: Docker) -> None:
    found, outcome = inside(docker_sessions, SERVERS)
    where = found.pop("where")
    assert where == "127.0.0.1"
    assert set(found.values()) == {"own reached"}
    assert denied(outcome) == []


NAMES = r"""
def ask(name, server):
    question = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0)
    question += b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    with socket.create_connection((server, 53), 60) as link:
        link.sendall(struct.pack("!H", len(question)) + question)
        answer = link.recv(4096)
        return {0: "answered", 5: "refused"}.get(answer[5] & 15, answer[5] & 15)
attempt("allowed", lambda: ask("allowed.test", "192.0.2.53"))
attempt("forbidden", lambda: ask("forbidden.test", "127.0.0.11"))
found["variable"] = os.environ["RES_OPTIONS"]
"""


def test_questions_to_any_name_server_are_answered_by_the_agents(docker_sessions: Docker) -> None:
    found, outcome = inside(docker_sessions, NAMES)
    assert found == {"allowed": "answered", "forbidden": "refused", "variable": "use-vc"}
    assert {event["resource"] for event in denied(outcome)} == {"forbidden.test:53"}


FORGED = r"""
listening = set()
for line in open("/proc/net/tcp").read().splitlines()[1:]:
    row = line.split()
    if row[3] == "0A": listening.add(int(row[1].split(":")[1], 16))
found["listening"] = len(listening)
body = socket.inet_aton("127.0.0.1") * 2 + struct.pack("!HH", 1, raw) + b"\xe0\0\1" + b"1" + b"\xe1\0\x10" + bytes(16)
forged = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(body)) + body
for port in sorted(listening): attempt(f"forged {port}", lambda: talk(("127.0.0.1", port), forged))
for port in sorted(listening):
    done = threading.Event()
    sock = socket.socket()
    def write():
        while not done.is_set():
            with contextlib.suppress(OSError): sock.send(forged, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    thread = threading.Thread(target=write); thread.start()
    with contextlib.suppress(OSError): sock.connect(("192.0.2.1", 9))
    done.set(); thread.join(); sock.close()
"""


def test_a_forged_preamble_leads_nowhere(docker_sessions: Docker) -> None:
    rules = "    - {host: 127.0.0.1, ports: [1], protocol: tcp, addresses: [127.0.0.0/8]}\n"
    found, outcome = inside(docker_sessions, FORGED, rules=rules)
    assert found.pop("listening") >= 5  # the stand-ins, the proxy, the door
    assert all("reached" not in str(answer) for name, answer in found.items()), found
    assert docker_sessions.upstream.escapes == 0
    assert "connect-agent" in {event["details"]["rule"] for event in denied(outcome)}


OTHERS = r"""
for name, family, kind in (("udp", 2, 2), ("udp6", 10, 2), ("raw", 2, 3), ("unix datagram", 1, 2), ("vsock", 40, 1)):
    attempt(name, lambda: socket.socket(family, kind).close())
for path in ("/run/parhelia/hook.sock", "/srv/shared/machine.sock", "\0machine"):
    def dial(path=path):
        with socket.socket(socket.AF_UNIX) as sock: sock.connect(path)
    attempt(repr(path), dial)
def own():
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind("/tmp/own.sock"); server.listen(); client.connect("/tmp/own.sock")
    return struct.unpack("3i", server.accept()[0].getsockopt(1, 17, 12))[1] == os.getuid()
attempt("own", own)
"""


def test_no_other_socket_leads_out(docker_sessions: Docker) -> None:
    found, outcome = inside(docker_sessions, OTHERS)
    assert found.pop("own") is True
    assert found.pop("'/run/parhelia/hook.sock'") is None, "the hook's socket is the session's to ask"
    assert found.pop("'/srv/shared/machine.sock'") in ("PermissionError 13", "FileNotFoundError 2")
    assert found.pop("'\\x00machine'") == "ConnectionRefusedError 111"
    assert set(found.values()) <= {"PermissionError 13", "OSError 97"}
    assert ("unix:@machine", "unix-socket") in {(e["resource"], e["details"]["rule"]) for e in denied(outcome)}


STATIC = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET, "192.0.2.9", &to.sin_addr);
    int link = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(link, (struct sockaddr *)&to, sizeof to)) return perror("connect"), 1;
    char text[4096];
    const char *ask = "GET / HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n";
    int size = snprintf(text, sizeof text, ask, argv[2], argv[1]);
    if (write(link, text, size) != size) return 2;
    while ((size = read(link, text, sizeof text)) > 0) fwrite(text, 1, size, stdout);
    return 0;
}
"""


def test_a_static_binary_is_decided_like_any_other(docker_sessions: Docker) -> None:
    require(shutil.which("gcc"), "gcc")
    tools = docker_sessions.directory / "tools"
    tools.mkdir(mode=0o755)
    build = ["gcc", "-static", "-x", "c", "-", "-o", str(tools / "static")]
    subprocess.run(build, input=STATIC.encode(), check=True)
    port = docker_sessions.upstream.ports["http"]
    text = f"/srv/shared/tools/static {port} allowed.test; /srv/shared/tools/static {port} forbidden.test"
    outcome = docker_sessions.run(Case(("/bin/sh", "-c", text), policy(write="/tmp, /srv/shared/tools")))
    assert f"reached allowed.test:{port}" in outcome.stdout, outcome.stderr
    assert "reached forbidden" not in outcome.stdout
    (event,) = denied(outcome)
    assert event["resource"] == f"forbidden.test:{port}"
