"""The attack list's lookups (rows 37 and 38), as raw DNS messages to the session's own server and to anybody's.

`Must.status` is the response code (RFC 1035 4.1.1) where a name server serves the session.
"""

from __future__ import annotations

import struct

from tests.escape.attack_cases import Attack, Must

NOERROR, FORMERR, REFUSED = 0, 1, 5
A, AAAA, TXT, MX, ANY, HTTPS_RECORD = 1, 28, 16, 15, 255, 65
OWN, ANYBODY = "127.0.0.1", "192.0.2.53"


def question(*asked: tuple[str, int]) -> bytes:
    """A recursive query with these questions."""
    body = b""
    for name, kind in asked:
        labels = (bytes((len(label),)) + label.encode("latin-1") for label in name.split("."))
        body += b"".join(labels) + struct.pack(">BHH", 0, kind, 1)
    return struct.pack(">6H", 0x4711, 0x0100, len(asked), 0, 0, 0) + body


def lookup(name: str, data: bytes, must: Must, to: str = OWN, way: str = "datagram") -> Attack:
    data = data if way == "datagram" else len(data).to_bytes(2) + data
    return Attack((37, 38), name, {"way": way, "to": [to, 53], "data": data.decode("latin-1")}, must)


def default(name: str) -> Must:
    return Must(REFUSED, "egress-default", f"{name}:53")


def lookups() -> list[Attack]:
    secret, good = "secret-bytes.evil.test", "api.good.test"
    other, wrong = Must(REFUSED, "dns-type", f"{good}:53"), Must(REFUSED, "malformed-request", "unknown:53")
    two = question((good, A), (secret, A))
    return [
        lookup("an allowed name", question((good, A)), Must(NOERROR)),
        lookup("a name that carries bytes out", question((secret, A)), default(secret)),
        lookup("its IPv6 addresses", question((secret, AAAA)), default(secret)),
        lookup("its text", question((secret, TXT)), default(secret)),
        lookup("all of it", question((secret, ANY)), default(secret)),
        lookup("an allowed name's text", question((good, TXT)), other),
        lookup("all of an allowed name", question((good, ANY)), other),
        lookup("an allowed name's HTTPS record", question((good, HTTPS_RECORD)), other),
        lookup("two questions", two, wrong),
        lookup("no question", question(), wrong),
        lookup("a name of metadata", question(("metadata-0.good.test", A)),
               Must(REFUSED, "egress-address", "metadata-0.good.test:53")),
    ]  # fmt: skip


def lookups_elsewhere() -> list[Attack]:
    """Asked of a server that the session chose: the jail's own answers where it captures."""
    secret, good = "secret-bytes.evil.test", "api.good.test"
    return [
        lookup("an allowed name of anybody", question((good, A)), Must(NOERROR), ANYBODY),
        lookup("a secret of anybody", question((secret, A)), default(secret), ANYBODY),
        lookup("an allowed name of anybody by TCP", question((good, A)), Must(NOERROR), ANYBODY, "itself"),
        lookup("a secret of anybody by TCP", question((secret, A)), default(secret), ANYBODY, "itself"),
    ]
