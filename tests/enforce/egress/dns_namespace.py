"""A network namespace like the jail's, with a real name server upstream, and real clients that ask the session's.

Run as ``unshare -n -m python -m tests.enforce.egress.dns_namespace DIR``: every address is local, the egress process
resolves through a server at `UPSTREAM` that writes down what it is asked, and each client runs in a mount namespace
whose resolv.conf names the server that the test says. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from ipaddress import ip_network
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from agent.session.doors import Door
from tests.enforce.egress.proxy import LOOPBACK, policy, rule, running

UPSTREAM = "127.0.0.9"
ZONE = {
    ("api.good.test", "A"): ["127.0.0.5", "127.0.0.6"],
    ("api.good.test", "AAAA"): ["::1"],
    ("v4.good.test", "A"): ["127.0.0.7"],
    ("empty.good.test", "TXT"): ["exists"],
}
HOSTS = "127.0.0.1 localhost\n127.0.0.77 hosts.good.test\n"
ALLOWED = [rule(f"{name}.good.test") for name in ("v4", "empty", "missing", "hosts")]

# getaddrinfo(3) with AI_ADDRCONFIG and a family asks for nothing where no interface has such an address but loopback
ADDRCONFIG = "address add 192.0.2.1/32 dev lo"

PYTHON = """
import json, socket, sys
def ask(name):
    try:
        return sorted({entry[4][0] for entry in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)})
    except OSError as error:
        return error.args[0]
print(json.dumps({name: ask(name) for name in sys.argv[1:]}))
"""
NODE = """
const dns = require("dns").promises;
const ask = async (f, name) => { try { return (await f(name)).sort() } catch (error) { return error.code } };
(async () => {
  const [name, refused] = process.argv.slice(1), out = {};
  out.a = await ask(dns.resolve4, name); out.aaaa = await ask(dns.resolve6, name);
  out.txt = await ask(dns.resolveTxt, name); out.refused = await ask(dns.resolve4, refused);
  console.log(JSON.stringify(out));
})();
"""


def upstream(asked: list[str]) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((UPSTREAM, 53))

    def serve() -> None:
        while True:
            data, who = server.recvfrom(4096)
            query = dns.message.from_wire(data)
            name, kind = query.question[0].name.to_text(omit_final_dot=True), query.question[0].rdtype.name
            asked.append(f"{name} {kind}")
            answer = dns.message.make_response(query, recursion_available=True)
            if (name, kind) in ZONE:
                answer.answer.append(dns.rrset.from_text_list(query.question[0].name, 60, "IN", kind, ZONE[name, kind]))
            elif name not in {known for known, _ in ZONE}:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            server.sendto(answer.to_wire(), who)

    threading.Thread(target=serve, daemon=True).start()


def doors() -> list[tuple[Door, socket.socket]]:
    made = []
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for door, kind in ((Door.DNS_UDP, socket.SOCK_DGRAM), (Door.DNS_TCP, socket.SOCK_STREAM)):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, 53))
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            made.append((door, sock))
    return made


def client(directory: Path, resolv: str, argv: list[str]) -> str:
    """What a program prints that finds this resolv.conf, and no names of the machine's own."""
    (directory / "hosts").write_text("127.0.0.1 localhost\n")
    (directory / "resolv").write_text(resolv)
    bind = 'mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv" /etc/resolv.conf && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", bind, "sh", str(directory), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def clients(directory: Path) -> dict[str, object]:
    names = ["api.good.test", "v4.good.test", "empty.good.test", "missing.good.test", "hosts.good.test", "evil.test"]
    python = [sys.executable, "-IS", "-c", PYTHON, *names]
    found: dict[str, object] = {}
    for title, resolv in {
        "local": "nameserver 127.0.0.1\n",
        "foreign": "nameserver 8.8.8.8\noptions edns0\n",
        "foreign six": "nameserver 2001:4860:4860::8888\n",
        "tcp": "nameserver 8.8.4.4\noptions use-vc\n",
        "search": "nameserver 127.0.0.1\nsearch corp.test\n",
    }.items():
        found[title] = json.loads(client(directory, resolv, python))
    found["getent"] = client(directory, "nameserver 127.0.0.1\n", ["getent", "ahostsv4", "v4.good.test"]).split()[0]
    node = ["node", "-e", NODE, "api.good.test", "evil.test"]
    found["node"] = json.loads(client(directory, "nameserver 9.9.9.9\n", node) or "null")
    return found


def main(directory: Path) -> None:
    for command in ("link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo", ADDRCONFIG):
        subprocess.run(["ip", *command.split()], check=True)
    for name, text in {"agent-resolv": f"nameserver {UPSTREAM}\n", "agent-hosts": HOSTS}.items():
        (directory / name).write_text(text)
        target = {"agent-resolv": "/etc/resolv.conf", "agent-hosts": "/etc/hosts"}[name]
        subprocess.run(["mount", "--bind", str(directory / name), target], check=True)
    asked: list[str] = []
    upstream(asked)
    both = rule("api.good.test", addresses=(*LOOPBACK, ip_network("::1/128")))
    served = doors()
    with running(policy(both, *ALLOWED), {}, directory, module=True, sockets=served) as proxy:
        found = clients(directory)
        denied = sorted({event["event"]["resource"] for event in proxy.events})
    print(json.dumps({"clients": found, "asked": asked, "denied": denied}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
