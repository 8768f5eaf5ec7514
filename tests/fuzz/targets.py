"""What the parsers of the egress process are held to, whatever bytes they are given.

A target takes bytes and raises AssertionError (or anything that the parser was not supposed to raise) where a promise
is broken: no crash, no allow that an independent reading does not confirm, no two readings of one text.
`test_targets.py` runs them under hypothesis, `python -m tests.fuzz TARGET` under atheris.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Callable
from datetime import date

import dns.exception
import dns.message
import dns.rdataclass
import h11

from agent.enforce.egress.client import Place
from agent.enforce.egress.head import CHUNKED, Chunks, HeadError, end_of_head, parse_request, parse_response
from agent.enforce.egress.hello import ClientHello, HelloError, read_client_hello
from agent.enforce.egress.http_target import parse_target
from agent.enforce.egress.identity import parse_authority
from agent.enforce.egress.question import QuestionError, read_question
from agent.enforce.egress.socks import SocksError, read_greeting, read_request
from agent.policy.decide import decide
from agent.policy.decision import Verdict
from agent.policy.hosts import HostError
from agent.policy.model import EgressSection, HostRule, Layer, Policy, Where
from agent.policy.request import EgressRequest, Origin, Protocol, Stage
from agent.session import preamble
from tests.enforce.egress.test_hello import GOOD, message, records, server_name, versions

_RULE = HostRule(id="good", pattern="*.good.test", where=Where("fuzz.yaml", 1, 1), ports=(443,), protocol=Protocol.TLS)
POLICY = Policy(layers=(Layer(source="fuzz", egress=EgressSection(allow=(_RULE,))),), digest="f" * 64)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_GOOD = re.compile(rf"(?:{_LABEL}\.)+good\.test\.?", re.ASCII)
"""What may be allowed, read by other means than the agent's."""


def allowed(host: str, port: int) -> bool:
    """Whether the policy lets a TLS connection there through."""
    question = EgressRequest(
        host=host, port=port, today=date(2026, 11, 22), origin=Origin("fuzz"), protocol=Protocol.TLS,
        addresses=("93.184.215.14",), stage=Stage.CONNECT,
    )  # fmt: skip
    return decide(POLICY, question).verdict is Verdict.ALLOW


def authority(data: bytes) -> None:
    """CONNECT's target: allowed is only what plainly names a good host and 443."""
    text = data.decode("latin-1")
    try:
        host, port = parse_authority(text)
    except HostError:
        return
    if not text.isascii():
        return  # no way in takes such text (request heads and SOCKS names are ASCII); IDNA maps it
    if allowed(host, port):
        named, _, number = text.rpartition(":")
        assert _GOOD.fullmatch(named.lower()), text
        assert int(number) == 443, text


def request_head(data: bytes) -> None:
    """A request head: read as h11 reads it, or refused; its URL is malformed or has one host."""
    try:
        end = end_of_head(data)
        if end is None:
            return
        request = parse_request(data[:end])
        length = request.body
    except HeadError:
        return
    for place in (None, Place(80), Place(80, "api.good.test")):
        with contextlib.suppress(HeadError, HostError):
            parse_target(request, place)
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        other.receive_data(data[:end])
        event = other.next_event()
    except h11.RemoteProtocolError:
        return  # stricter than we are: nobody reads two things
    assert isinstance(event, h11.Request), event
    assert (event.method.decode(), event.target.decode("latin-1")) == (request.method, request.target)
    # h11 gives a Transfer-Encoding in lower case: its names don't tell the cases apart (RFC 9112 section 7)
    ours = [(name, value.lower() if name == "transfer-encoding" else value) for name, value in request.fields]
    assert [(name.decode(), value.decode("latin-1").strip(" \t")) for name, value in event.headers] == ours
    seen = dict(event.headers)
    assert (b"transfer-encoding" in seen) == (length == CHUNKED)
    assert int(seen.get(b"content-length", b"0")) == max(length, 0)


def response_head(data: bytes) -> None:
    with contextlib.suppress(HeadError):
        parse_response(data).body("GET")


def chunks(data: bytes) -> None:
    """A chunked body reads the same in one piece and byte by byte."""
    assert _chunked([data]) == _chunked([data[at : at + 1] for at in range(len(data))])


def _chunked(pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    found, body = Chunks(), b""
    try:
        for piece in pieces:
            body += found.feed(piece)
    except HeadError:
        return None
    return body, found.done, found.rest


def client_hello(data: bytes) -> None:
    """A ClientHello that is taken names what OpenSSL reads in it; no part of it is taken for the whole."""
    try:
        hello = read_client_hello(data)
    except HelloError as error:
        assert error.rule in {"tls-required", "tls-malformed"}, error.rule
        return
    if hello is not None:
        names = openssl_reads(data)
        assert not names or names == [hello.sni], (names, hello)
        _refused_unless_good(hello)


def _refused_unless_good(hello: ClientHello) -> None:
    if hello.sni is not None and _GOOD.fullmatch(hello.sni.lower()) is None:
        try:
            host, port = parse_authority(f"{hello.sni}:443")
        except HostError:
            return
        assert not allowed(host, port), hello.sni


def openssl_reads(data: bytes) -> list[str | None]:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _sock, name, _context: names.append(name)  # type: ignore[assignment]
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    into.write(data)
    with contextlib.suppress(ssl.SSLError):
        context.wrap_bio(into, out, server_side=True).do_handshake()
    return names


def socks(data: bytes) -> None:
    """A SOCKS request is taken as it stands, at its first whole byte, and allowed only where it plainly names good."""
    with contextlib.suppress(SocksError):
        greeting = read_greeting(data)
        assert greeting is None or greeting.size == 2 + len(greeting.methods)
    try:
        request = read_request(data)
        if request is None:
            return
        short = read_request(data[: request.size - 1])
        host, port = parse_authority(f"[{request.host}]:1" if ":" in request.host else f"{request.host}:1")
    except (SocksError, HostError):
        return
    assert short is None
    if allowed(host, request.port):
        length = data[4]
        assert data[3] == 3, data
        assert _GOOD.fullmatch(data[5 : 5 + length].decode("ascii").lower()), data
        assert data[5 + length : 7 + length] == b"\x01\xbb", (data, port)


def forwarded(data: bytes) -> None:
    """A preamble is taken whole, and says what `render` would say of the same ends."""
    try:
        found = preamble.read(data)
    except preamble.PreambleError:
        return
    if found is not None:
        head, size = found
        assert preamble.read(data[: size - 1]) is None
        again = preamble.read(preamble.render(head))
        assert again is not None
        assert again[0] == head or "::ffff:" in again[0].source[0] + again[0].destination[0], head


def dns_question(data: bytes) -> None:
    """A question that is taken is the one that dnspython reads, and nothing else is in the message."""
    try:
        found = read_question(data)
    except QuestionError as error:
        assert error.answer is None or error.answer[:2] == data[:2]
        return
    try:
        read = dns.message.from_wire(data)
    except dns.exception.DNSException:
        return  # stricter than we are (within EDNS): it is refused later
    (asked,) = read.question
    assert (asked.rdtype, asked.rdclass) == (found.rdtype, dns.rdataclass.IN)
    assert not read.answer
    assert not read.authority
    assert asked.name.to_text(omit_final_dot=True).lower() == found.host
    assert read.edns >= 0 or not found.edns


_ENDS = preamble.Preamble(("127.0.0.1", 40000), ("203.0.113.9", 443), 4711)
_HEAD = b"POST http://api.good.test/x?y HTTP/1.1\r\nHost: api.good.test\r\nContent-Length: 3\r\n\r\n"
TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "authority": (authority, (b"api.good.test:443", b"[::ffff:1.2.3.4]:443", b"evil.test:443.good.test:443")),
    "request": (request_head, (_HEAD, _HEAD.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"))),
    "response": (response_head, (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",)),
    "chunks": (chunks, (b"4\r\nwiki\r\n5;e=1\r\npedia\r\n0\r\nTrailer: x\r\n\r\nrest",)),
    "socks": (socks, (b"\5\1\0\3\x0dapi.good.test\1\xbb", b"\5\1\0\1\x7f\0\0\1\0\x50", b"\5\2\0\2")),
    "forwarded": (forwarded, (preamble.render(_ENDS), preamble.render(preamble.Preamble(("::1", 1), ("::2", 2))))),
    "dns": (
        dns_question,
        (
            dns.message.make_query("api.good.test", "A").to_wire(),
            dns.message.make_query("x.evil.test", "TXT", use_edns=0, payload=1232).to_wire(),
        ),
    ),
    "hello": (
        client_hello,
        (GOOD, records(message([(21, bytes(40)), server_name(b"x.good.test"), versions(0x0304)]), 50)),
    ),
}
"""Name -> the target, and inputs to begin with."""
