"""Secrets through the real engine: injected where the policy says, kept in everywhere else, masked on the way back."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent.enforce.egress.secrets import HeldSecret, Secrets
from agent.policy.model import Credential, Policy, Secret, SecretSource, SourceKind, Where
from agent.policy.request import Protocol
from agent.record.event import EventType, ResourceType, Result
from tests.enforce.egress.engine_front import HOST, Front, Target, allow, exchange, policy_of
from tests.enforce.egress.engine_upstream import Authority
from tests.enforce.egress.secret_upstream import OK, KeepingUpstream

VALUE = "real-Value+of/the~secret-0123456789"
PLACEHOLDER = "parhelia-placeholder-api-00112233445566778899aabbccddeeff"
PINNED = "pinned.test"
ELSEWHERE = "elsewhere.test"
HELD = Secrets([HeldSecret("api", PLACEHOLDER, VALUE)])


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def policy_for(port: int) -> Policy:
    entry = Secret(
        name="api",
        source=SecretSource(SourceKind.ENV, ("API_KEY",)),
        hosts=(HOST, PINNED),
        headers=("authorization", "x-api-key"),
        where=Where("t.yaml", 1, 1),
        env="API_KEY",
    )
    pinned = Credential("api", only=True)
    rules = [
        allow(host, port, protocol=Protocol.TLS, paths=("/", "/**"), credential=pinned if host == PINNED else None)
        for host in (HOST, PINNED, ELSEWHERE)
    ]
    return policy_of(*rules, secrets=(entry,))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[KeepingUpstream]:
    made = KeepingUpstream(authority.server_context(HOST, PINNED, ELSEWHERE))
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(authority: Authority, server: KeepingUpstream) -> Iterator[Front]:
    front = Front(policy_for(server.port), authority.file, secrets=HELD)
    yield front
    front.close()


@pytest.fixture
def front(engine: Front, server: KeepingUpstream) -> Front:
    server.reset()
    engine.journal.renew()
    engine.target = Target(HOST, server.port)
    return engine


def silent(front: Front) -> None:
    """No record says the value."""
    assert VALUE not in repr(front.journal.posted) + repr(front.journal.accepted)


@pytest.mark.parametrize(
    ("header", "sent", "arrives"),
    [
        ("x-api-key", PLACEHOLDER, VALUE),
        ("Authorization", f"Bearer {PLACEHOLDER}", f"Bearer {VALUE}"),
        ("AUTHORIZATION", f"token {PLACEHOLDER}", f"token {VALUE}"),
        ("Authorization", basic("x-access-token", PLACEHOLDER), basic("x-access-token", VALUE)),
        ("Authorization", basic(PLACEHOLDER, ""), basic(VALUE, "")),
    ],
)
@pytest.mark.parametrize("host", [HOST, PINNED])
def test_the_placeholder_becomes_the_value_on_the_way_and_that_is_recorded_first(
    front: Front, server: KeepingUpstream, host: str, header: str, sent: str, arrives: str
) -> None:
    front.target = Target(host, server.port)
    front.get("GET", "/v1", **{header.replace("-", "_"): sent})
    assert f"{header}: {arrives}".encode() in server.all()
    assert PLACEHOLDER.encode() not in server.all()
    (event,) = [event for event in front.journal.accepted if event.type is EventType.SECRET_INJECT]
    assert (event.resource, event.resource_type, event.result) == ("api", ResourceType.SECRET, Result.SUCCESS)
    assert event.details["secret_name"] == "api"
    assert (event.details["host"], event.details["header"]) == (host, header.lower())
    assert front.journal.posted == []
    silent(front)


def test_what_cannot_be_recorded_is_not_injected(front: Front, server: KeepingUpstream) -> None:
    front.journal.broken = True
    response, _ = front.get("GET", "/v1", x_api_key=PLACEHOLDER)
    assert (response.status, response.getheader("X-Parhelia-Rule")) == (403, "audit-unavailable")
    assert server.all() == b""


def test_a_request_without_the_placeholder_goes_on_as_it_is(front: Front, server: KeepingUpstream) -> None:
    front.target = Target(PINNED, server.port)
    response, _ = front.get("POST", "/v1", b"x" * 200_000, X_Other="1")
    assert response.status == 200
    assert VALUE.encode() not in server.all()
    assert len(server.all()) > 200_000
    assert front.journal.accepted == []


LEAKS = [
    ("in the path", f"GET /{PLACEHOLDER} HTTP/1.1", [], b"", "the URL"),
    ("in the query", f"GET /?k={VALUE.replace('+', '%2B')} HTTP/1.1", [], b"", "the URL"),
    ("in another field", "GET / HTTP/1.1", [f"X-Other: {PLACEHOLDER}"], b"", "the header field x-other"),
    ("the value in its own field", "GET / HTTP/1.1", [f"X-Api-Key: {VALUE}"], b"", "the header field x-api-key"),
    ("in a field's name", "GET / HTTP/1.1", [f"{PLACEHOLDER}: 1"], b"", "the name of a header field"),
    ("hidden in Basic", "GET / HTTP/1.1", [f"X-Other: {basic('u', PLACEHOLDER)}"], b"", "the header field x-other"),
    ("in hex", "GET / HTTP/1.1", [f"X-Other: {VALUE.encode().hex()}"], b"", "the header field x-other"),
    ("in a body", "POST / HTTP/1.1", ["Content-Length: {}"], VALUE.encode(), "the body"),
    (
        "in a body, encoded",
        "POST / HTTP/1.1",
        ["Content-Length: {}"],
        base64.b64encode(b"a" + VALUE.encode()),
        "the body",
    ),
    ("twice in one field", "GET / HTTP/1.1", [f"X-Api-Key: {PLACEHOLDER} {PLACEHOLDER}"], b"", "x-api-key"),
]


@pytest.mark.parametrize(("line", "lines", "body", "where"), [case[1:] for case in LEAKS], ids=[c[0] for c in LEAKS])
def test_a_secret_in_the_wrong_place_is_refused_and_recorded_and_nothing_leaves(
    front: Front, server: KeepingUpstream, line: str, lines: list[str], body: bytes, where: str
) -> None:
    said = front.raw(front.head(line, *(each.format(len(body)) for each in lines), "Connection: close") + body)
    assert said.startswith(b"HTTP/1.1 403 "), said
    assert b"X-Parhelia-Rule: secret-leak" in said
    event = front.journal.wait()[0]
    assert (event.type, event.result) == (EventType.NETWORK_EGRESS_BLOCKED, Result.DENIED)
    assert event.details["rule"] == "secret-leak"
    assert where in str(event.details["reason"])
    assert "secret api" in str(event.details["reason"])
    assert server.all() == b""


def test_the_right_field_at_another_host_is_a_leak(front: Front, server: KeepingUpstream) -> None:
    front.target = Target(ELSEWHERE, server.port)
    response, _ = front.get("GET", "/", x_api_key=PLACEHOLDER)
    assert (response.status, response.getheader("X-Parhelia-Rule")) == (403, "secret-leak")
    assert server.all() == b""


def test_a_repeated_field_with_a_placeholder_is_refused(front: Front, server: KeepingUpstream) -> None:
    lines = [f"X-Api-Key: {PLACEHOLDER}", "X-Api-Key: mine", "Connection: close"]
    said = front.raw(front.head("GET / HTTP/1.1", *lines))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert front.journal.wait()[0].details["rule"] == "malformed-request"
    assert server.all() == b""


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_long_body_is_cut_before_the_secret_is_whole(front: Front, server: KeepingUpstream, framing: str) -> None:
    body = b"x" * 150_000 + VALUE.encode() + b"y" * 100
    said = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {len(body)}"
    head = front.head("POST / HTTP/1.1", said)
    with front.tls() as sock:
        sock.sendall(head)
        for at in range(0, len(body), 20):
            piece = body[at : at + 20]
            try:
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            except OSError:
                break
        with suppress(OSError):
            exchange(sock, b"")  # closing with unread bytes would take back what was sent
    assert front.journal.wait()[0].details["rule"] == "secret-leak"
    assert VALUE.encode()[:4] not in server.all()


PINS = [
    ("another key", ["X-Api-Key: sk-mine"], "the header field x-api-key"),
    ("another bearer", ["Authorization: Bearer mine"], "the header field authorization"),
    ("beside the placeholder", [f"X-Api-Key: {PLACEHOLDER}", "Authorization: Bearer mine"], "authorization"),
    ("a user that is a key", [f"Authorization: {basic('ghp_mine', PLACEHOLDER)}"], "authorization"),
    ("a word beside it", [f"X-Api-Key: mine {PLACEHOLDER}x"], "x-api-key"),
    ("a vendor's field", ["Private-Token: mine"], "private-token"),
    ("a cloud's field", ["X-Amz-Security-Token: mine"], "x-amz-security-token"),
    ("an underscore", ["x_api_key: mine"], "x_api_key"),
    ("a scheme in an odd field", ["X-Odd: Bearer mine"], "x-odd"),
    ("a key among subprotocols", ["Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.mine"], "websocket"),
    ("a bearer among them", ["Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.mine, v4"], "websocket"),
]


@pytest.mark.parametrize(("lines", "where"), [case[1:] for case in PINS], ids=[case[0] for case in PINS])
def test_a_host_that_pins_its_credential_takes_no_other(
    front: Front, server: KeepingUpstream, lines: list[str], where: str
) -> None:
    front.target = Target(PINNED, server.port)
    said = front.raw(front.head("GET / HTTP/1.1", *lines, "Connection: close"))
    assert b"X-Parhelia-Rule: credential-pinned" in said
    event = front.journal.wait()[0]
    assert where in str(event.details["reason"])
    assert "mine" not in repr(event)
    assert server.all() == b""


@pytest.mark.parametrize("query", ["key=mine", "api_key=mine", "a=1&access%5Ftoken=mine", "a;X-Amz-Signature=mine"])
def test_a_credential_in_the_query_is_refused_there_too(front: Front, server: KeepingUpstream, query: str) -> None:
    front.target = Target(PINNED, server.port)
    response, _ = front.get("GET", f"/?{query}")
    assert response.getheader("X-Parhelia-Rule") == "credential-pinned"
    assert server.all() == b""


def test_what_is_no_credential_passes_and_cookies_end_here(front: Front, server: KeepingUpstream) -> None:
    front.target = Target(PINNED, server.port)
    fields = {"Idempotency_Key": "1", "X_CSRF_Token": "2", "Cookie": "session=mine", "Anthropic_Version": "3"}
    response, _ = front.get("GET", "/?page_token=1&keyword=2", x_api_key=PLACEHOLDER, **fields)
    assert response.status == 200
    assert b"Idempotency-Key: 1" in server.all()
    assert b"mine" not in server.all()


def test_a_value_that_comes_back_is_masked_in_head_and_body(front: Front, server: KeepingUpstream) -> None:
    forms = [VALUE.encode(), base64.b64encode(VALUE.encode()), VALUE.encode().hex().encode()]
    body = b"you said: " + b" and ".join(forms) + b"."
    head = b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n" % (VALUE.encode(), len(body))
    server.answer = lambda _: [head, *(body[at : at + 7] for at in range(0, len(body), 7))]
    response, got = front.get("GET", "/", x_api_key=PLACEHOLDER, Accept_Encoding="gzip", Range="bytes=0-5")
    assert response.status == 200
    assert len(got) == len(body)
    assert got.startswith(b"you said: ")
    assert got.count(b"[secret api]") == 3
    seen = got + repr(response.getheaders()).encode()
    assert HELD.value_in(seen) is None
    asked = server.all().lower()
    assert b"accept-encoding: identity" in asked
    assert b"\r\nrange:" not in asked


@pytest.mark.parametrize("coding", ["content", "transfer"])
def test_an_answer_that_cannot_be_searched_is_not_passed_on(front: Front, server: KeepingUpstream, coding: str) -> None:
    body = gzip.compress(VALUE.encode())
    if coding == "content":
        whole = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    server.answer = lambda _: [whole]
    response, got = front.get("GET", "/", x_api_key=PLACEHOLDER)
    assert response.status == 502
    assert b"compressed" in got
    assert [event.details["rule"] for event in front.journal.wait()] == ["answer-unreadable"]
    if coding == "content":
        assert front.get("GET", "/")[0].status == 200  # without an injection it passes


def test_one_connection_serves_requests_with_and_without_secrets(front: Front, server: KeepingUpstream) -> None:
    client = front.client()
    for fields in ({"X-Api-Key": PLACEHOLDER}, {}, {"X-Api-Key": PLACEHOLDER}):
        client.request("POST", "/", b"body", fields)
        assert client.getresponse().read() == b"ok"
    client.close()
    assert server.all().count(VALUE.encode()) == 2
    assert OK not in server.all()
