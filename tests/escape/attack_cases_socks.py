"""The attack list once more, spoken in SOCKS5 (RFC 1928): the same hosts, names and addresses, the same verdicts.

`Must.status` is the reply code here.
"""

from __future__ import annotations

from ipaddress import ip_address

from tests.escape.attack_cases import ALLOWED, HTTPS, LITERALS, Attack, Must, at, proxied, request

GENERAL, NOT_ALLOWED, COMMAND_UNKNOWN = 1, 2, 7
CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3


def domain(host: str, port: int = HTTPS, command: int = CONNECT) -> str:
    """A request for a name, as hexadecimal."""
    name = host.encode("latin-1")
    return (bytes((5, command, 0, 3, len(name))) + name + port.to_bytes(2)).hex()


def address(text: str, port: int = HTTPS, command: int = CONNECT) -> str:
    """A request for an address, as hexadecimal."""
    found = ip_address(text)
    return (bytes((5, command, 0, 1 if found.version == 4 else 4)) + found.packed + port.to_bytes(2)).hex()


def spoken(rows: tuple[int, ...], name: str, wanted: str, must: Must, **more: object) -> Attack:
    return Attack(rows, f"SOCKS {name}", {"way": "socks", "request": wanted, **more}, must)


def refused(resource: str) -> Must:
    return Must(NOT_ALLOWED, "egress-default", resource)


MALFORMED = Must(GENERAL, "malformed-request", "unknown")


def names() -> list[Attack]:
    found = []
    for row, host in ((1, "API.GOOD.TEST"), (2, "api.good.test."), (11, "_dmarc.good.test")):
        sni = host.lower().rstrip(".")
        found.append(spoken((row,), host, domain(host), ALLOWED, sni=sni, data=request(sni)))
    for row, host in (
        *((4, f"evil.test{odd}.good.test") for odd in "\0\r\n \x7f\xe9"), (5, "::ffff:1.2.3.4%x.good.test"),
        (3, "[evil.test]"), (7, "evil.com:443.good.test"), (12, "a" * 64 + ".good.test"), (4, "evil.test@good.test"),
    ):  # fmt: skip
        found.append(spoken((row,), repr(host), domain(host), MALFORMED))
    for row, host, port in (
        (6, "evilgood.test", 443), (6, "good.test.evil.test", 443), (13, "api.good.test", 9999), (14, "localhost", 443),
        (30, "evil.test", 443), (30, "evil.test", 80), (38, "secret-bytes.evil.test", 443), (39, "mitm.it", 443),
        (37, "dns.evil.test", 853),
    ):  # fmt: skip
        found.append(spoken((row,), f"{host}:{port}", domain(host, port), refused(f"{host}:{port}")))
    return found


def addresses() -> list[Attack]:
    found = []
    for row, text, canonical in LITERALS:
        found.append(spoken((row,), f"the name {text}", domain(text), refused(at(canonical, 443))))
    for row, text, canonical in (
        (14, "127.0.0.1", "127.0.0.1"), (15, "93.184.215.14", "93.184.215.14"), (16, "::1", "::1"), (16, "::", "::"),
        (16, "::ffff:127.0.0.1", "127.0.0.1"), (17, "64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe"),
        (18, "169.254.169.254", "169.254.169.254"), (18, "fd00:ec2::254", "fd00:ec2::254"),
    ):  # fmt: skip
        found.append(spoken((row,), f"the address {text}", address(text), refused(at(canonical, 443))))
    must = Must(NOT_ALLOWED, "egress-address", "mixed.good.test:443")
    return [*found, spoken((19,), "a name of two kinds", domain("mixed.good.test"), must)]


def tunnels() -> list[Attack]:
    good, place = domain("api.good.test"), "api.good.test:443"
    return [
        spoken((23,), "to good with the name evil", good, Must(None, "sni-mismatch", place), sni="evil.test"),
        spoken((28,), "an SSH banner", good, Must(None, "tls-required", place), data="SSH-2.0-OpenSSH_9.2\r\n"),
        spoken((28,), "a plain request", good, Must(None, "tls-required", place), data=request("api.good.test")),
        spoken((37,), "BIND", domain("api.good.test", command=BIND), Must(COMMAND_UNKNOWN, "socks-command", place)),
        spoken((37,), "UDP ASSOCIATE", address("127.0.0.2", 53, UDP_ASSOCIATE),
               Must(COMMAND_UNKNOWN, "socks-command", "127.0.0.2:53")),
        proxied((4,), "SOCKS4", "\4\1\1\xbb\x7f\0\0\2\0", Must(91, "malformed-request", "unknown")),
        proxied((4,), "SOCKS5 with a password only", "\5\1\2", Must(0xFF, "malformed-request", "unknown")),
    ]  # fmt: skip


def attacks_by_socks() -> list[Attack]:
    """All that are spoken in SOCKS."""
    return [*names(), *addresses(), *tunnels()]
