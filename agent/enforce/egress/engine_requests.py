"""What the engine demands of a request before the policy is asked: one identity, one meaning. Pure.

Rules kept here: the Host header, the :authority and an absolute request target all name the host and port that the
connection was opened to (RFC 9110 section 7.4: else 421); a method is written in its registered, upper-case form and
not overridden by a header, nor is a path; what is malformed is refused, never repaired. The policy sees only requests
that passed here, and judges the path itself (`agent.policy.url_paths`: one reading, or a denial).
"""

from __future__ import annotations

import re
from typing import Final, Literal

from agent.enforce.egress.head import disguised, overrides_method, overrides_path
from agent.policy.hosts import HostError, host_and_port, normalise_host
from agent.policy.request import Protocol
from agent.values import dataclass

MAX_SHOWN = 512
CUT: Final = "parhelia_cut"
"""Of a flow's metadata: who is told with which Refusal its WebSocket is cut."""

_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}")
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")  # visible ASCII; a fragment ("#") never belongs into a request


@dataclass(frozen=True, slots=True)
class Identity:
    """What one connection was vetted for. `host` is normalised, `addresses` are the only ones that may be dialled."""

    host: str
    port: int
    addresses: tuple[str, ...]
    kind: Literal["connect", "absolute"]
    request_id: str
    source_ip: str | None
    source_port: int | None = None

    @property
    def protocol(self) -> Protocol:
        return Protocol.TLS if self.kind == "connect" else Protocol.HTTP

    @property
    def default_port(self) -> int:
        return 443 if self.kind == "connect" else 80

    @property
    def authority(self) -> str:
        """The one spelling that is sent upstream."""
        return host_and_port(self.host, self.port).removesuffix(f":{self.default_port}")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head as it was received. `target` includes the query; `authority` is empty where none was sent."""

    method: bytes
    target: bytes
    authority: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    version: bytes
    http2: bool

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        return self.target.partition(b"?")[2]

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The header fields as text, names in lower case."""
        return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self.headers)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the engine itself refuses: the HTTP status, the rule id for the record, and the words."""

    status: int
    rule: str
    reason: str
    instead: str = ""


def examine(identity: Identity, head: Head) -> Refusal | None:
    """The first thing that is wrong with this request on this connection, None where the policy may be asked."""
    return _examine_method(head) or _examine_form(head) or _examine_authority(identity, head) or _examine_path(head)


def examine_sni(identity: Identity, sni: str | None) -> Refusal | None:
    """TLS inside a tunnel must name the tunnel's host; a client of an address literal names nothing (RFC 6066)."""
    if sni is None:
        if ":" in identity.host or re.fullmatch(r"[0-9.]+", identity.host):
            return None
        return Refusal(421, "sni-missing", "the TLS handshake names no host (SNI)", "use a client that sends SNI")
    try:
        same = normalise_host(sni) == identity.host
    except HostError:
        same = False
    if same:
        return None
    return Refusal(
        421,
        "sni-mismatch",
        f"the TLS handshake names {printable(sni)}, the tunnel was opened to {identity.host}",
        "open a tunnel of its own for each host",
    )


def is_websocket(head: Head) -> bool:
    """An HTTP/1.1 upgrade to WebSocket and to nothing else (RFC 6455 section 4.1)."""
    return (
        not head.http2
        and head.method == b"GET"
        and [value.strip().lower() for value in head.values(b"upgrade")] == [b"websocket"]
        and "upgrade" in tokens(head.values(b"connection"))
    )


def tokens(values: list[bytes]) -> list[str]:
    """The lower-case tokens of a list header."""
    return [part.strip().lower() for value in values for part in value.decode("latin-1").split(",") if part.strip()]


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    """`text` with everything but visible ASCII and space escaped, cut at `limit` characters."""
    shown = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text[:limit])
    return shown if len(text) <= limit else shown + "..."


def _examine_method(head: Head) -> Refusal | None:
    if head.method.upper() == b"CONNECT":
        return Refusal(403, "connect-inside-tunnel", "a tunnel inside an inspected connection", "ask the proxy itself")
    if head.method.upper() in (b"TRACE", b"TRACK"):
        return Refusal(403, "method-refused", "TRACE echoes credentials and has no use here")
    if not _METHOD.fullmatch(head.method):
        return _malformed("the method is not written in upper-case letters, as RFC 9110 registers it")
    if any(overrides_method(name) for name, _ in head.fields):
        return Refusal(403, "method-override", "the request overrides its method in a header")
    if any(overrides_path(name) for name, _ in head.fields):
        return Refusal(403, "path-override", "the request overrides its path in a header")
    return None


def _examine_form(head: Head) -> Refusal | None:
    if not head.http2 and head.version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return _malformed("the protocol version is not HTTP/1.0 or HTTP/1.1")
    for name, value in head.headers:
        if re.search(rb"[\r\n\0]", name + value):
            return _malformed("a header is folded or holds CR, LF or NUL")
    if any(value.strip().lower() != b"chunked" for value in head.values(b"transfer-encoding")):
        return _malformed("a Transfer-Encoding other than chunked")
    if any(disguised(name) for name, _ in head.fields):
        return _malformed("a header is named like one of the message's framing")
    return None


def _examine_authority(identity: Identity, head: Head) -> Refusal | None:
    hosts = head.values(b"host")
    named = ([head.authority] if head.authority else []) + hosts
    if not named or len(hosts) > 1 or (not head.http2 and not hosts):
        return Refusal(421, "authority-mismatch", "the request must name its host exactly once (Host or :authority)")
    for text in named:
        if not _same_authority(identity, text):
            return Refusal(
                421,
                "authority-mismatch",
                f"the request names {printable(text.decode('latin-1'))}, the connection is to {identity.authority}",
                "open a connection of its own for each host",
            )
    return None


def _same_authority(identity: Identity, text: bytes) -> bool:
    match = re.fullmatch(rb"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", text)
    if match is None:
        return False
    port = identity.default_port if match[2] is None else int(match[2])
    try:
        return port == identity.port and normalise_host(match[1].decode("ascii")) == identity.host
    except (HostError, UnicodeDecodeError):
        return False


def _examine_path(head: Head) -> Refusal | None:
    if head.target == b"*" and head.method == b"OPTIONS":
        return None
    if not head.target.startswith(b"/") or not _TARGET.fullmatch(head.target):
        return _malformed("the request target is not a path of visible ASCII characters")
    return None


def _malformed(reason: str) -> Refusal:
    return Refusal(400, "malformed-request", reason)
