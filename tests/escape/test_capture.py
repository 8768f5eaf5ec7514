"""Programs that ask no proxy, in the jail: whatever they connect to arrives at the egress process, is decided, and is
on record; what cannot be decided goes nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.policy.hosts import host_and_port
from tests.conftest import require
from tests.escape.arena import ContainerArena
from tests.escape.outside import OTHER, SERVER, Outside
from tests.escape.runtime import AGENT, Case, Host, Outcome, policy

pytestmark = pytest.mark.root

TCP_RULE = f"    - {{host: {SERVER}, ports: [9000], protocol: tcp, addresses: [203.0.113.0/24]}}\n"
DIRECT = ("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20")
TLS, PLAIN = "https://{name}/", "http://{name}/"


def here(*, rules: str = "") -> str:
    """The suite's policy, for the stand-ins' addresses of `outside`."""
    return policy(extra_egress=rules).replace("127.0.0.0/8", "203.0.113.0/24")


def counted(outcome: Outcome, kind: str) -> int:
    return sum(event["details"].get("count", 1) for event in outcome.of(kind))


def asked(host: Host, *command: str, rules: str = "") -> Outcome:
    """Run it; nothing may have got where nobody may."""
    assert isinstance(host.outside, Outside)
    before = (list(host.outside.arrived), host.upstream.escapes)
    outcome = host.run(Case(command, here(rules=rules)))
    assert (host.outside.arrived, host.upstream.escapes) == before
    assert outcome.verified == 0
    return outcome


@pytest.mark.parametrize("url", [TLS, PLAIN])
def test_a_client_that_asks_no_proxy_gets_what_is_allowed_and_it_is_recorded(outside_host: Host, url: str) -> None:
    port = "443" if url == TLS else "80"
    to = ("--resolve", f"allowed.test:{port}:{SERVER}")
    outcome = asked(outside_host, *DIRECT, *to, url.format(name="allowed.test"))
    assert outcome.stdout == "reached allowed.test\n", outcome.stderr
    (event,) = outcome.of("network.egress")
    assert event["resource"] == f"allowed.test:{port}"
    assert event["details"]["mechanism"] == "capture"
    assert outcome.of("network.egress_blocked") == []


@pytest.mark.parametrize("url", [TLS, PLAIN])
def test_and_is_refused_what_is_not(outside_host: Host, url: str) -> None:
    port = "443" if url == TLS else "80"
    to = ("--resolve", f"forbidden.test:{port}:{SERVER}")
    outcome = asked(outside_host, *DIRECT, *to, url.format(name="forbidden.test"))
    assert "reached" not in outcome.stdout
    assert outcome.of("network.egress") == []
    (event,) = outcome.of("network.egress_blocked")
    assert (event["resource"], event["details"]["rule"]) == (f"forbidden.test:{port}", "egress-default")
    assert event["details"]["mechanism"] == "capture"


def test_an_allowed_name_at_another_address_leads_to_the_names_own(outside_host: Host) -> None:
    """The address that the client dialled is never dialled for a name: it is resolved anew."""
    outcome = asked(outside_host, *DIRECT, "--resolve", f"allowed.test:443:{OTHER}", "https://allowed.test/")
    assert outcome.stdout == "reached allowed.test\n", outcome.stderr
    (event,) = outcome.of("network.egress")
    assert event["details"]["addresses"] == [SERVER]
    assert event["details"]["captured"] == f"{OTHER}:443"


STATIC = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    char said[4096];
    int link = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    if (connect(link, (struct sockaddr *)&to, sizeof to)) { perror("connect"); return 3; }
    if (write(link, argv[3], strlen(argv[3])) < 0) { perror("write"); return 4; }
    for (ssize_t n; (n = read(link, said, sizeof said)) > 0;) fwrite(said, 1, n, stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def static_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program without a C library beside it: it connects, writes its third argument, and prints what it reads."""
    require(shutil.which("gcc"), "gcc")
    directory = tmp_path_factory.mktemp("static")
    (directory / "client.c").write_text(STATIC)
    built = directory / "client"
    subprocess.run(["gcc", "-static", "-o", built, directory / "client.c"], check=True, capture_output=True)
    return built


def in_session(host: Host, program: Path, *arguments: str, rules: str = "") -> Outcome:
    """A copy of the program where the session may execute it."""
    script = 'cp "$0" /tmp/client.$$ && /tmp/client.$$ "$@"; status=$?; rm /tmp/client.$$; exit $status'
    shutil.copy(program, place := Path("/opt") / f"parhelia-test-{program.parent.name}")
    try:
        return asked(host, "/bin/sh", "-c", script, str(place), *arguments, rules=rules)
    finally:
        place.unlink()


def test_a_static_program_is_captured_like_any_other(outside_host: Host, static_client: Path) -> None:
    def request(name: str) -> str:
        return f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"

    allowed = in_session(outside_host, static_client, SERVER, "80", request("allowed.test"))
    assert "reached allowed.test" in allowed.stdout, allowed.stderr
    assert [event["resource"] for event in allowed.of("network.egress")] == ["allowed.test:80"]
    refused = in_session(outside_host, static_client, SERVER, "80", request("forbidden.test"))
    assert "reached" not in refused.stdout
    assert [event["resource"] for event in refused.of("network.egress_blocked")] == ["forbidden.test:80"]


PROBES = r"""
import json, socket, sys
found = {}
for name, family, kind, address, port in json.loads(sys.argv[1]):
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as link:
        link.settimeout(60)
        try:
            link.connect((address, port))
            link.sendall(b"hello\n")
            found[name] = link.recv(64).decode("latin-1")
        except OSError as error:
            found[name] = type(error).__name__
print(json.dumps(found))
"""
RAW = {
    "a raw port": ("AF_INET", "SOCK_STREAM", OTHER, 9000),
    "ssh": ("AF_INET", "SOCK_STREAM", OTHER, 22),
    "DNS over TLS": ("AF_INET", "SOCK_STREAM", OTHER, 853),
    "a metadata service": ("AF_INET", "SOCK_STREAM", "169.254.169.254", 9000),
    "a private address": ("AF_INET", "SOCK_STREAM", "10.0.0.1", 9000),
    "where the capture listens": ("AF_INET", "SOCK_STREAM", "127.0.0.1", 3129),
    "IPv6": ("AF_INET6", "SOCK_STREAM", "2001:db8::1", 9000),
    "mapped IPv4": ("AF_INET6", "SOCK_STREAM", f"::ffff:{OTHER}", 9000),
}
DATAGRAMS = {
    "QUIC": ("AF_INET", "SOCK_DGRAM", SERVER, 443),
    "any datagram": ("AF_INET", "SOCK_DGRAM", OTHER, 9000),
    "IPv6 datagram": ("AF_INET6", "SOCK_DGRAM", "2001:db8::1", 443),
}


def probed(host: Host, probes: dict[str, tuple[str, str, str, int]], rules: str = "") -> tuple[dict[str, str], Outcome]:
    wanted: list[Any] = [[name, *probe] for name, probe in probes.items()]
    outcome = asked(host, "/usr/bin/python3", "-c", PROBES, json.dumps(wanted), rules=rules)
    assert outcome.status == 0, outcome.stderr
    return json.loads(outcome.stdout), outcome


def test_raw_connections_to_any_port_are_refused_and_each_is_on_record(outside_host: Host) -> None:
    found, outcome = probed(outside_host, RAW)
    assert set(found.values()) <= {"", "ConnectionResetError"}, found
    blocked = outcome.of("network.egress_blocked")
    assert counted(outcome, "network.egress_blocked") == len(RAW)
    assert {event["details"]["mechanism"] for event in blocked} == {"capture"}
    assert {event["source_ip"] for event in blocked} <= {"127.0.0.1", "::1"}, "the session's own end"
    expected = {host_and_port(address.removeprefix("::ffff:"), port) for _, _, address, port in RAW.values()}
    assert {event["resource"] for event in blocked} == expected


def test_raw_bytes_go_where_a_rule_says_tcp_and_nowhere_else(outside_host: Host) -> None:
    assert outside_host.outside is not None
    before = outside_host.upstream.escapes
    probes = {"granted": ("AF_INET", "SOCK_STREAM", SERVER, 9000), "not": ("AF_INET", "SOCK_STREAM", SERVER, 9001)}
    wanted: list[Any] = [[name, *probe] for name, probe in probes.items()]
    command = ("/usr/bin/python3", "-c", PROBES, json.dumps(wanted))
    outcome = outside_host.run(Case(command, here(rules=TCP_RULE)))
    assert outside_host.upstream.escapes == before + 1
    assert [event["resource"] for event in outcome.of("network.egress")] == [f"{SERVER}:9000"]
    assert [event["resource"] for event in outcome.of("network.egress_blocked")] == [f"{SERVER}:9001"]


def test_datagrams_go_nowhere_and_the_sender_is_told_at_once(outside_host: Host) -> None:
    found, outcome = probed(outside_host, DATAGRAMS)
    assert set(found.values()) == {"ConnectionRefusedError"}, found
    assert outcome.of("network.egress_blocked") == []


OWN = r"""
import http.server, json, socket, threading, urllib.request
found = {}
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8000), http.server.SimpleHTTPRequestHandler)
server.RequestHandlerClass.log_message = lambda *_: None
threading.Thread(target=server.serve_forever, daemon=True).start()
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for address in ("127.0.0.1", "localhost", "127.1.2.3"):
    found[address] = direct.open(f"http://{address}:8000/", timeout=10).status
thieves = {}
for kind in ("SOCK_STREAM", "SOCK_DGRAM"):
    for address, port in (("0.0.0.0", 53), ("127.0.0.1", 3128), ("127.0.0.1", 3129), ("203.0.113.10", 443)):
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket(socket.AF_INET, getattr(socket, kind)) as thief:
                thief.setsockopt(socket.SOL_SOCKET, option, 1)
                try: thief.bind((address, port))
                except OSError as error: thieves[f"{kind} {address} {port}"] = type(error).__name__
                else: thieves[f"{kind} {address} {port}"] = "bound"
stolen = socket.socket()
stolen.bind(("203.0.113.10", 8443)); stolen.listen(); stolen.setblocking(False)
victim = socket.create_connection(("203.0.113.10", 8443), 10)
victim.sendall(b"hello\n")
try: victim.recv(64)
except OSError: pass
try: stolen.accept(); found["stolen"] = True
except BlockingIOError: found["stolen"] = False
print(json.dumps([found, thieves]))
"""


def test_its_own_servers_on_loopback_are_its_own_and_the_doors_are_not(outside_host: Host) -> None:
    outcome = asked(outside_host, "/usr/bin/python3", "-c", OWN)
    assert outcome.status == 0, outcome.stderr
    found, thieves = json.loads(outcome.stdout)
    assert found == {"127.0.0.1": 200, "localhost": 200, "127.1.2.3": 200, "stolen": False}
    bound = {name for name, what in thieves.items() if what == "bound"}
    assert bound <= {"SOCK_DGRAM 127.0.0.1 3128", "SOCK_DGRAM 127.0.0.1 3129"}, "nothing of the agent's is there in UDP"
    blocked = outcome.of("network.egress_blocked")
    assert [event["resource"] for event in blocked] == [f"{SERVER}:8443"], "its own host's name is asked of nobody"


def test_the_name_server_that_programs_find_is_the_agents(outside_host: Host) -> None:
    outcome = asked(outside_host, "/bin/cat", "/etc/resolv.conf")
    assert outcome.stdout == "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"
    kept = asked(outside_host, "/bin/sh", "-c", "echo nameserver 1.1.1.1 > /etc/resolv.conf; umount /etc/resolv.conf")
    assert kept.status != 0


LOOKUPS = r"""
import json, socket, sys
def ask(kind, address, name, port=53):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    query = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + labels + b"\0\1\0\1"
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as link:
        link.settimeout(60)
        link.connect((address, port))
        link.send(query if kind == socket.SOCK_DGRAM else len(query).to_bytes(2) + query)
        return list((link.recv(4096) if kind == socket.SOCK_DGRAM else link.recv(4096)[2:])[3:8:4])
found = {}
allowed, refused, *addresses = json.loads(sys.argv[1])
for name in (allowed, refused):
    for kind in ("SOCK_DGRAM", "SOCK_STREAM"):
        for address in addresses:
            flags, answers = ask(getattr(socket, kind), address, name)
            found[f"{name} {kind} {address}"] = [flags & 15, answers]
try: found["getaddrinfo"] = socket.getaddrinfo(allowed, 443, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
except OSError as error: found["getaddrinfo"] = str(error)
print(json.dumps(found))
"""


def test_whichever_name_server_is_asked_the_agents_answers(outside_host: Host) -> None:
    assert outside_host.outside is not None
    before = len(outside_host.outside.questions)
    addresses = ["127.0.0.1", "127.0.0.11", "8.8.8.8", "::1", "2001:db8::53"]
    wanted = json.dumps(["allowed.test", "secret-bytes.forbidden.test", *addresses])
    outcome = asked(outside_host, "/usr/bin/python3", "-c", LOOKUPS, wanted)
    assert outcome.status == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found.pop("getaddrinfo") == SERVER
    assert {tuple(answer) for name, answer in found.items() if name.startswith("allowed.test")} == {(0, 1)}
    assert {tuple(answer) for name, answer in found.items() if "forbidden" in name} == {(5, 0)}
    asked_upstream = {question.split()[0] for question in outside_host.outside.questions[before:]}
    assert asked_upstream == {"allowed.test"}, "what is refused is asked of nobody"
    blocked = outcome.of("network.egress_blocked")
    assert counted(outcome, "network.egress_blocked") == 10
    assert {event["details"]["mechanism"] for event in blocked} == {"dns"}


def test_a_client_that_knows_neither_proxy_nor_address_works(outside_host: Host) -> None:
    outcome = asked(outside_host, *DIRECT, "https://allowed.test/")
    assert outcome.stdout == "reached allowed.test\n", outcome.stderr
    refused = asked(outside_host, *DIRECT, "https://forbidden.test/")
    assert "reached" not in refused.stdout
    assert {event["details"]["mechanism"] for event in refused.of("network.egress_blocked")} == {"dns"}


@pytest.mark.docker
@pytest.mark.gvisor
def test_gvisor_answers_whichever_ipv4_name_server_is_asked(gvisor_arena: ContainerArena) -> None:
    """What it captures of connections: test_attack_list_direct.py."""
    rules = "version: 1\negress:\n  allow:\n    - {host: api.good.test, addresses: [127.0.0.0/8]}\n"
    rules += "paths: {write: [/tmp], read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]}\n"
    names = ["api.good.test", "secret-bytes.evil.test"]
    command = [
        "/usr/bin/python3",
        "-c",
        LOOKUPS,
        json.dumps([*names, "127.0.0.1", "8.8.8.8"]),
    ]  # no datagrams of IPv6 there
    visit = gvisor_arena.visit(rules, {"api.good.test": [["127.0.0.1"]]}, command)
    assert visit.outcome.status == 0, visit.outcome.stderr
    found = json.loads(visit.outcome.stdout)
    assert found.pop("getaddrinfo") == "127.0.0.1"
    assert {tuple(answer) for name, answer in found.items() if "good" in name} == {(0, 1)}, found
    assert {tuple(answer) for name, answer in found.items() if "evil" in name} == {(5, 0)}, found
    assert visit.looked_up.keys() == {"api.good.test"}
    assert visit.counted == counted(visit.outcome, "network.egress_blocked") == 4


class WithoutAdmin(Host):
    """An agent that may make namespaces only through a user namespace: Docker with user namespaces, for one."""

    def command(self, case: Case) -> list[str]:
        argv = super().command(case)
        at = argv.index(str(AGENT))
        return [*argv[:at], "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", *argv[at:]]


def test_the_jail_of_a_user_namespace_captures_as_much(tmp_path: Path, host: Host, outside: Outside) -> None:
    """There is no mount namespace, so programs ask the machine's name server: the question arrives at the agent's."""
    require(shutil.which("setpriv"), "setpriv (util-linux)")
    jailed = WithoutAdmin(tmp_path, outside.upstream, outside)
    outcome = asked(jailed, *DIRECT, "https://allowed.test/", f"https://{OTHER}:8443/")
    assert outcome.stdout == "reached allowed.test\n", outcome.stderr
    (created,) = outcome.of("session.create")
    assert created["details"]["levels"]["egress"] == "enforced"
    assert [event["resource"] for event in outcome.of("network.egress")] == ["allowed.test:443"]
    assert [event["resource"] for event in outcome.of("network.egress_blocked")] == [f"{OTHER}:8443"]
