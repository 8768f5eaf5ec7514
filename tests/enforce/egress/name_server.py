"""The name server in the real egress process, and what is needed to ask it."""

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

from agent.policy.model import Policy
from agent.session.doors import Door
from tests.enforce.egress.proxy import LOOPBACK, SECONDS, Proxy, policy, rule, running

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


def addresses(answer: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in answer.answer for item in rrset]


def info(answer: dns.message.Message) -> list[tuple[int, str | None]]:
    return [(option.code, option.text) for option in answer.options if isinstance(option, dns.edns.EDEOption)]


def flags_of(data: bytes, flags: int, *counts: int) -> bytes:
    return data[:2] + struct.pack(">5H", flags, *counts) + data[12:]


PLAIN = dns.message.make_query(GOOD, "A").to_wire()
SECOND = dns.message.make_query("secret-bytes.evil.test", "A").to_wire()[12:]


def framed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def read_framed(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
        piece = sock.recv(2 - len(data) if len(data) < 2 else 2 + int.from_bytes(data[:2]) - len(data))
        assert piece, "the connection ended"
        data += piece
    return data[2:]
