"""The attack list past the proxy: programs that ask nobody. In a jail that captures them the connection is decided;
elsewhere there is no way, and nobody to tell.

`Must` is what a capturing jail does; `status` None: the connection ends.
"""

from __future__ import annotations

from tests.escape.attack_cases import ALLOWED, Attack, Must, request

SOMEWHERE, SOMEWHERE_6 = "198.51.100.7", "2001:db8::7"
"""Addresses of nobody's."""
HOST = "web.inspect.test"


def direct(rows: tuple[int, ...], name: str, port: int, must: Must, **more: object) -> Attack:
    case = {"way": "itself", "to": [more.pop("to", SOMEWHERE), port], **more}
    return Attack(rows, name, case, must)


def refused(resource: str, status: int | None = None) -> Must:
    return Must(status, "egress-default", resource)


def attacks_past_the_proxy() -> list[Attack]:
    good, evil = request("api.good.test"), request("evil.test")
    metadata = "169.254.169.254"
    return [
        direct((26, 36), "good's name at another address", 443, ALLOWED, sni="api.good.test", data=good),
        direct((26, 37), "the same by IPv6", 443, ALLOWED, to=SOMEWHERE_6, sni="api.good.test", data=good),
        direct((26,), "evil's name at another address", 443, refused("evil.test:443"), sni="evil.test", data=evil),
        direct((26,), "good's name, evil's Host, looked into", 443, Must(421, "authority-mismatch", f"{HOST}:443"),
               sni=HOST, data=evil),
        direct((32,), "a path that is not allowed", 443, refused(f"{HOST}:443", 403),
               sni=HOST, data=request(HOST, "GET /private HTTP/1.1")),
        direct((27,), "no name", 443, Must(None, "sni-missing", f"{SOMEWHERE}:443"), sni=None),
        direct((30,), "plain HTTP for evil", 80, refused("evil.test:80", 403), data=evil),
        direct((30,), "plain HTTP for good", 80, refused("api.good.test:80", 403), data=good),
        direct((22,), "plain HTTP for metadata", 80, refused(f"{metadata}:80", 403), to=metadata,
               data=request(metadata)),
        direct((25,), "an absolute URL for evil", 80, Must(421, "host-mismatch", "evil.test:80"),
               data=request("api.good.test", "GET http://evil.test/ HTTP/1.1")),
        direct((31,), "two Hosts", 80, Must(400, "malformed-request", "unknown"),
               data=request("api.good.test", "GET / HTTP/1.1", "Host: evil.test")),
        direct((28, 36), "SSH", 22, refused(f"{SOMEWHERE}:22"), data="SSH-2.0-OpenSSH_9.2\r\n"),
        direct((13, 36), "good's name on another port", 9999, refused("api.good.test:9999"), sni="api.good.test"),
        direct((37,), "DNS over TLS", 853, refused("dns.evil.test:853"), to="192.0.2.53", sni="dns.evil.test"),
    ]  # fmt: skip


def unheard() -> list[Attack]:
    """Where nobody listens in any runtime: the session's own loopback, and datagrams."""
    own = (("127.0.0.2", 443), ("127.0.0.2", 22), ("127.0.0.1", 9091), ("127.0.0.1", 443), ("::1", 443))
    found = [direct((14,), f"{to} on port {port}", port, ALLOWED, to=to, data="x") for to, port in own]
    for to, port in ((SOMEWHERE, 443), (SOMEWHERE_6, 443), ("127.0.0.2", 443)):
        case = {"way": "datagram", "to": [to, port], "data": "x" * 40}
        found.append(Attack((37,), f"a datagram to {to} port {port}", case, ALLOWED))
    return found
