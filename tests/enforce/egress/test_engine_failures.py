"""What the client is told when an upstream fails: our words in both versions of HTTP, and none of the upstream's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.enforce.egress import engine
from agent.enforce.egress.secrets import HeldSecret, Secrets
from agent.policy.model import Secret, SecretSource, SourceKind, Where
from tests.enforce.egress.engine_front import HOST, Front, Target, policy_of, tls_rule
from tests.enforce.egress.engine_upstream import Authority
from tests.enforce.egress.secret_upstream import KeepingUpstream
from tests.enforce.egress.test_engine_faults import Inside, get
from tests.enforce.egress.test_engine_http2 import Http2Client

VALUE = "real-Value+of/the~secret-0123456789"
PLACEHOLDER = "parhelia-placeholder-api-00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[KeepingUpstream]:
    made = KeepingUpstream(authority.server_context(HOST))
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(authority: Authority, server: KeepingUpstream) -> Iterator[Front]:
    source = SecretSource(SourceKind.ENV, ("KEY",))
    entry = Secret("api", source, (HOST,), ("x-api-key",), Where("t.yaml", 1, 1), env="KEY")
    policy = policy_of(
        tls_rule(HOST, server.port, paths=("/", "/**")), tls_rule(HOST, 1, paths=("/",)), secrets=(entry,)
    )
    front = Front(policy, authority.file, secrets=Secrets([HeldSecret("api", PLACEHOLDER, VALUE)]))
    yield front
    front.close()


@pytest.fixture
def failing(worker: Front, server: KeepingUpstream) -> Front:
    server.reset()
    worker.target = Target(HOST, server.port)
    return worker


ANSWERS = {
    "cut in its head": [b"HTTP/1.1 200 OK\r\nX-Echo: " + VALUE.encode(), b""],
    "no HTTP": [VALUE.encode() + b" is no status line\r\n\r\n"],
    "an unreadable length": [b"HTTP/1.1 200 OK\r\nContent-Length: " + VALUE.encode() + b"\r\n\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nX: " + VALUE.encode() + b"\r\n\r\n"],
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("http2", [False, True])
def test_an_answer_that_cannot_be_read_is_not_quoted(
    failing: Front, server: KeepingUpstream, name: str, http2: bool
) -> None:
    server.answer = lambda _: ANSWERS[name]
    if http2:
        client = Http2Client(failing)
        stream = client.send("GET", "/", ("x-api-key", PLACEHOLDER))
        status, body = client.answers([stream])[stream]
    else:
        response, body = failing.get("GET", "/", x_api_key=PLACEHOLDER)
        status = response.status
    assert status == 502
    assert body == b"parhelia: the upstream's answer is malformed, or did not come\n"
    assert VALUE.encode() in server.all()


def test_an_upstream_that_refuses_is_named_in_our_words_in_http2_too(failing: Front) -> None:
    failing.target = Target(HOST, 1)
    client = Http2Client(failing)
    stream = client.send("GET", "/")
    status, body = client.answers([stream])[stream]
    assert status == 502
    assert body.startswith(b"parhelia: ")
    assert b"mitmproxy" not in body


def test_a_head_without_an_end_ends_the_exchange(failing: Front, server: KeepingUpstream) -> None:
    server.answer = lambda _: [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: " % n + b"a" * 8192 + b"\r\n" for n in range(200))]
    response, body = failing.get("GET", "/")
    assert (response.status, body[:9]) == (502, b"parhelia:")


def test_an_upstream_that_takes_no_connection_is_a_time_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "DIAL_SECONDS", 0.3)
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        for _ in range(3):  # with its queue full the kernel drops what else arrives (listen(2))
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        inside = Inside(policy_of(tls_rule(HOST, port, paths=("/**",))), authority)
        stack.callback(inside.close)
        said = inside.request(port, get(port))
    assert said.startswith(b"HTTP/1.1 504 ")
    assert b"no answer from 127.0.0.1" in said
