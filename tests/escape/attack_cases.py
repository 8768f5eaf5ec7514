"""The attack list as data: what a session tries, and what must become of it.

Every case names the rows of the list of 42 attack groups that it belongs to. A `Must` says what the session may see and
what the log must hold; who was contacted outside is in the journal of the arena.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.enforce.egress.test_hello import message, records, server_name, versions

HTTPS = 443
POLICY = """\
version: 1
egress:
  allow:
    - {host: api.good.test, ports: [443, 8443], addresses: [127.0.0.0/8]}
    - {host: "*.good.test", addresses: [127.0.0.0/8]}
    - {host: web.inspect.test, methods: [GET, POST], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
paths:
  write: [/tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]
"""
"""The list's policy, with one host more that is looked into. (Port 8443: two rules may not say the same.)"""

HERE = [["127.0.0.1"]]
THERE = [["127.0.0.2"]]
SPECIAL = {
    "metadata": ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    "link-local": ("64:ff9b::a9fe:101", "169.254.1.1", "fe80::1"),
    "private": ("10.0.0.1", "192.168.0.1", "fc00::1", "2002:0a00:0001::1"),
    "cgnat": ("100.64.0.1",),
    "reserved": ("192.88.99.1", "2001:0:5db8:d822::a247:28f1"),
}
"""Class -> addresses that no grant of the policy covers."""
NAMES: dict[str, list[list[str]]] = {
    **dict.fromkeys(("api.good.test", "x.good.test", "_dmarc.good.test", "xn--bcher-kva.good.test"), HERE),
    "web.inspect.test": HERE,
    "rebind.good.test": [["127.0.0.1"], ["127.0.0.2"]],
    "mixed.good.test": [["127.0.0.1", "10.0.0.1"]],
    "both.good.test": [["93.184.215.14", "fd00:ec2::254"]],
    **dict.fromkeys(("evil.test", "evilgood.test", "good.test.evil.test", "mitm.it"), THERE),
    **{f"{kind}-{n}.good.test": [[address]] for kind, found in SPECIAL.items() for n, address in enumerate(found)},
}


@dataclass(frozen=True)
class Must:
    """`status`: of the proxy's answer (None: the tunnel opens, and is cut). `rule` None: it is allowed.

    `resource` is what the log names; "{proxy}" in it is the proxy's port. `says`: words of the answer.
    """

    status: int | None = None
    rule: str | None = None
    resource: str = ""
    says: str = ""


@dataclass(frozen=True)
class Attack:
    """One thing that a session tries."""

    rows: tuple[int, ...]
    name: str
    case: dict[str, Any]
    must: Must


def request(host: str, line: str = "GET / HTTP/1.1", *more: str) -> str:
    return "\r\n".join([line, f"Host: {host}", *more, "Connection: close", "", ""])


def connect(target: str, *more: str) -> str:
    return "\r\n".join([f"CONNECT {target} HTTP/1.1", *more, "", ""])


def through(rows: tuple[int, ...], name: str, host: str, sni: str, data: str, must: Must) -> Attack:
    """TLS in a tunnel to port 443."""
    return Attack(rows, name, {"way": "tunnel", "to": [host, HTTPS], "sni": sni, "data": data}, must)


def raw(rows: tuple[int, ...], name: str, data: bytes, rule: str, host: str = "api.good.test") -> Attack:
    """Bytes in an open tunnel, which is cut."""
    case = {"way": "tunnel", "to": [host, HTTPS], "data": data.decode("latin-1")}
    return Attack(rows, name, case, Must(None, rule, f"{host}:{HTTPS}"))


def proxied(rows: tuple[int, ...], name: str, data: str, must: Must) -> Attack:
    return Attack(rows, name, {"way": "proxy", "data": data}, must)


ALLOWED = Must()
MALFORMED = Must(400, "malformed-request", "unknown")


def at(host: str, port: int) -> str:
    """A place as the log writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def default(resource: str) -> Must:
    return Must(403, "egress-default", resource)


def spellings() -> list[Attack]:
    """Rows 1, 2, 9, 11: every spelling of an allowed host is that host."""
    found = []
    for rows, host, sni in (
        ((1,), "API.GOOD.TEST", "api.good.test"),
        ((2,), "api.good.test.", "api.good.test"),
        ((9,), "xn--bcher-kva.good.test", "xn--bcher-kva.good.test"),
        ((9,), "XN--BCHER-KVA.Good.Test", "xn--bcher-kva.good.test"),
        ((11,), "_dmarc.good.test", "_dmarc.good.test"),
    ):
        found.append(through(rows, f"allowed as {host}", host, sni, request(sni), ALLOWED))
    inside = Must(403, "egress-default", "web.inspect.test:443")
    line = "GET /private HTTP/1.1"
    found += [
        through((2,), "a dot changes no interception", "web.inspect.test.", "web.inspect.test",
                request("web.inspect.test", line), inside),
        proxied((2,), "a denied name with a dot", connect("evil.test.:443"), default("evil.test:443")),
        proxied((9,), "a name that is not ASCII", connect("b\xfccher.good.test:443"), MALFORMED),
    ]  # fmt: skip
    found += [
        through(
            (20,), f"rebinding, time {n}", "rebind.good.test", "rebind.good.test", request("rebind.good.test"), ALLOWED
        )
        for n in range(4)
    ]
    return found


def names() -> list[Attack]:
    """Rows 3-7, 12-14, 30, 38, 39: names that are odd, or near an allowed one."""
    odd = (
        (3, "[[evil.test]]:443"), (3, "[evil.test]:443"), (4, "evil.test\0.good.test:443"),
        (4, "evil.test\r\n.good.test:443"), (4, "evil.test\r.good.test:443"), (4, "evil.test\n.good.test:443"),
        (5, "::ffff:1.2.3.4%x.good.test:443"), (5, "[::ffff:1.2.3.4%x.good.test]:443"), (7, "evil.com:443.good.test"),
        (7, "evil.com:443.good.test:443"), (12, "a" * 64 + ".good.test:443"), (12, "a." * 126 + "good.test:443"),
        (16, "[::1%25eth0]:443"),
    )  # fmt: skip
    near = (
        (6, "evilgood.test:443"), (6, "good.test.evil.test:443"), (6, "good.test:443"), (13, "api.good.test:9999"),
        (13, "x.good.test:8443"), (14, "host.docker.internal:443"), (14, "gateway.docker.internal:443"),
        (14, "localhost:443"), (14, "127.0.0.1:{proxy}"), (14, "127.0.0.1:9091"), (14, "127.0.0.53:53"),
        (15, "93.184.215.14:443"), (30, "evil.test:443"), (37, "dns.evil.test:443"), (37, "evil.test:853"),
        (38, "secret-bytes.evil.test:443"), (39, "mitm.it:443"),
    )  # fmt: skip
    found = [proxied((row,), f"CONNECT {target[:40]!r}", connect(target), MALFORMED) for row, target in odd]
    found += [proxied((row,), f"CONNECT {target}", connect(target), default(target)) for row, target in near]
    for row, host in ((30, "evil.test"), (38, "secret-bytes.evil.test"), (39, "mitm.it"), (22, "169.254.169.254")):
        data = request(host, f"GET http://{host}/latest HTTP/1.1")
        found.append(proxied((row,), f"GET http://{host}", data, default(f"{host}:80")))
    data = request("evil.test", "GET http://[evil.test]/ HTTP/1.1")
    return [*found, proxied((3,), "GET http://[evil.test]/", data, MALFORMED)]


LITERALS = (
    (16, "2130706433", "127.0.0.1"), (16, "0177.0.0.1", "127.0.0.1"), (16, "0x7f000001", "127.0.0.1"),
    (16, "127.1", "127.0.0.1"), (16, "0.0.0.0", "0.0.0.0"), (16, "0", "0.0.0.0"), (16, "[::]", "::"),
    (16, "[::1]", "::1"), (16, "[::ffff:127.0.0.1]", "127.0.0.1"), (16, "[::ffff:7f00:1]", "127.0.0.1"),
    (17, "[64:ff9b::a9fe:a9fe]", "64:ff9b::a9fe:a9fe"), (17, "[2002:7f00:1::1]", "2002:7f00:1::1"),
    (17, "[::7f00:1]", "::7f00:1"), (17, "[2001:0:5db8:d822::80ff:fffe]", "2001:0:5db8:d822::80ff:fffe"),
    (18, "169.254.169.254", "169.254.169.254"), (18, "100.100.100.200", "100.100.100.200"),
    (18, "168.63.129.16", "168.63.129.16"), (18, "192.0.0.192", "192.0.0.192"),
    (18, "[fd00:ec2::254]", "fd00:ec2::254"), (18, "[fd20:ce::254]", "fd20:ce::254"),
)  # fmt: skip


def addresses() -> list[Attack]:
    """Rows 15-21: addresses, written out or as the answer of an allowed name."""
    found = []
    for row, text, canonical in LITERALS:
        found.append(proxied((row,), f"CONNECT {text}", connect(f"{text}:443"), default(at(canonical, 443))))
        data = request(text, f"GET http://{text}/ HTTP/1.1")
        found.append(proxied((row,), f"GET {text}", data, default(at(canonical, 80))))
    for kind, given in SPECIAL.items():
        for n, address in enumerate(given):
            must = Must(403, "egress-address", f"{kind}-{n}.good.test:443", says=kind)
            found.append(proxied((17, 18, 19, 21), f"a name of {address}", connect(f"{kind}-{n}.good.test:443"), must))
    for name, kind in (("mixed", "private"), ("both", "metadata")):
        must = Must(403, "egress-address", f"{name}.good.test:443", says=kind)
        found.append(
            proxied((19,), f"a name of {NAMES[f'{name}.good.test'][0]}", connect(f"{name}.good.test:443"), must)
        )
    return found


def hello(*extensions: tuple[int, bytes]) -> bytes:
    return records(message(list(extensions)))


def tunnels() -> list[Attack]:
    """Rows 23, 25, 27-29: what a tunnel to an allowed host may carry."""
    name = server_name(b"api.good.test")
    mismatch = Must(None, "sni-mismatch", "api.good.test:443")
    return [
        through((23,), "a tunnel to good with the name evil", "api.good.test", "evil.test", "", mismatch),
        through((23,), "a tunnel to good with another good name", "api.good.test", "x.good.test", "", mismatch),
        raw((27,), "a hello without a name", hello(versions(0x0304)), "sni-missing"),
        raw((27,), "a hello with two names", hello(name, server_name(b"evil.test"), versions(0x0304)), "tls-malformed"),
        raw((29,), "an encrypted hello", hello(name, versions(0x0304), (0xFE0D, bytes(30))), "ech-refused"),
        raw((28,), "an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n", "tls-required"),
        raw((28,), "a plain request", b"GET / HTTP/1.1\r\nHost: api.good.test\r\n\r\n", "tls-required"),
        raw((25,), "a plain absolute request", b"GET http://evil.test/ HTTP/1.1\r\n\r\n", "tls-required"),
        raw((33,), "a CONNECT inside", b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n", "tls-required"),
        raw((28,), "zeros", bytes(10), "tls-required"),
        proxied((4,), "a CONNECT with another Host", connect("api.good.test:443", "Host: evil.test"),
                Must(421, "host-mismatch", "api.good.test:443")),
    ]  # fmt: skip


def heads() -> list[Attack]:
    """Row 31: requests that two servers could read differently."""
    start = "POST http://api.good.test:8443/ HTTP/1.1\r\nHost: api.good.test:8443\r\n"
    odd = {
        "two Hosts": f"{start}Host: evil.test\r\n\r\n",
        "length and chunks": f"{start}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "two lengths": f"{start}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "a folded header": f"{start}A: b\r\n c\r\n\r\n",
        "bare LF": f"{start}\r\n".replace("\r\n", "\n"),
        "a bare CR": f"{start}A: b\rc\r\n\r\n",
    }
    return [proxied((31,), name, data, MALFORMED) for name, data in odd.items()]


def inspected() -> list[Attack]:
    """Rows 24, 25, 28, 32, 33, 39: requests inside a tunnel that is looked into."""
    host = "web.inspect.test"
    place = f"{host}:443"
    found = [
        through((32,), "an allowed path", host, host, request(host, "GET /pub/a HTTP/1.1"), ALLOWED),
        through((22,), "an answer that leads away", host, host, request(host, "GET /pub/away HTTP/1.1"), ALLOWED),
    ]
    for path in (
        "/private",
        "/pub/../admin",
        "/pub/%2e%2e/admin",
        "//pub/a",
        "/pub//a",
        "/pub/a;x",
        "/pub/a\\b",
        "/pub%2Fa",
        "/pub",
    ):
        data = request(host, f"GET {path} HTTP/1.1")
        found.append(through((32,), f"the path {path}", host, host, data, default(place)))
    mismatch = Must(421, "authority-mismatch", place)
    for row, name in ((24, "evil.test"), (24, "api.good.test"), (39, "mitm.it")):
        data = request(name, "GET /pub/a HTTP/1.1")
        found.append(through((row,), f"the Host {name} inside", host, host, data, mismatch))
    override = request(host, "POST /pub/a HTTP/1.1", "X-HTTP-Method-Override: DELETE", "Content-Length: 0")
    elsewhere = request(host, "GET /pub/a HTTP/1.1", "X-Original-URL: /admin")
    for row, name, data, must in (
        (25, "an absolute URL", request("evil.test", "GET http://evil.test/pub/a HTTP/1.1"), mismatch),
        (33, "DELETE", request(host, "DELETE /pub/a HTTP/1.1"), default(place)),
        (33, "an override of the method", override, Must(403, "method-override", place)),
        (33, "an override of the path", elsewhere, Must(403, "path-override", place)),
        (33, "TRACE", request(host, "TRACE /pub/a HTTP/1.1"), Must(403, "method-refused", place)),
        (33, "CONNECT", request(host, "CONNECT evil.test:443 HTTP/1.1"), Must(403, "connect-inside-tunnel", place)),
        (33, "get", request(host, "get /pub/a HTTP/1.1"), Must(400, "malformed-request", place)),
        (28, "SSH", "SSH-2.0-OpenSSH_9.2\r\n\r\n", Must(400, "malformed-request", place)),
    ):
        found.append(through((row,), f"{name} inside TLS", host, host, data, must))
    return found


def attacks() -> list[Attack]:
    """All that go by the proxy's own door."""
    return [*spellings(), *names(), *addresses(), *tunnels(), *heads(), *inspected()]
