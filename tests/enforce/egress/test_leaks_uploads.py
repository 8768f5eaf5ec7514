"""Uploads over plain HTTP to a host whose rule says `scan`, through the real egress process."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from agent.policy.model import Mode, Pattern
from agent.policy.request import Protocol
from tests.enforce.egress.proxy import Proxy, Upstream, policy, rule, running, upstream
from tests.enforce.egress.test_http1 import answers
from tests.enforce.egress.test_leaks import NAMES, request

PATTERNS = (Pattern("test-key", "key of a test", rb"tstkey_[a-z0-9]{24}", (b"tstkey_",)),)
KEY = "tstkey_" + "a1b2c3d4" * 3


@pytest.fixture(scope="module")
def origin() -> Iterator[Upstream]:
    with upstream(answers) as server:
        yield server


@pytest.fixture(scope="module", params=[Mode.ENFORCE, Mode.OBSERVE], ids=str)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, origin: Upstream
) -> Iterator[Proxy]:
    hosts = rule("web.good.test", origin.port, protocol=Protocol.HTTP, scan=True)
    given = policy(hosts, mode=request.param, patterns=PATTERNS)
    with running(given, NAMES, tmp_path_factory.mktemp("scan")) as started:
        yield started


@pytest.fixture
def enforced(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["proxy"] is Mode.ENFORCE)


@pytest.fixture
def clean(proxy: Proxy, origin: Upstream) -> Proxy:
    proxy.events.clear()
    origin.conversations.clear()
    return proxy


COMPRESSED = gzip.compress(KEY.encode())


@pytest.mark.parametrize(
    ("target", "fields", "body", "where"),
    [
        (f"/?x={KEY}", [], b"", "the URL"),
        ("/", [f"X-Note: {KEY}"], b"", "the header field x-note"),
        ("/", [f"Content-Length: {len(KEY)}"], KEY.encode(), "the body"),
        ("/", ["Content-Encoding: gzip", f"Content-Length: {len(COMPRESSED)}"], COMPRESSED, "the body"),
    ],
)
def test_a_credential_in_a_plain_upload_is_refused_and_recorded_or_only_recorded(
    clean: Proxy, origin: Upstream, enforced: bool, target: str, fields: list[str], body: bytes, where: str
) -> None:
    said = clean.ask(request(origin, target, *fields, body=body, method="POST" if body else "GET"))
    event = clean.event(rule="credential-in-upload")
    assert where in event["details"]["reason"]
    arrived = b"".join(map(bytes, origin.conversations))
    if enforced:
        assert event["result"] == "denied"
        assert b"X-Parhelia-Rule: credential-in-upload" in said
        assert KEY.encode() not in arrived
        assert COMPRESSED not in arrived
    else:
        assert event["details"]["enforced"] is False
        assert said.startswith(b"HTTP/1.1 200 ")


CUT = gzip.compress(b"words " * 9000)[:-1]


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_compressed_upload_without_its_end_does_not_arrive_whole(
    clean: Proxy, origin: Upstream, enforced: bool, framing: str
) -> None:
    if framing == "chunked":
        field, body = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(CUT), CUT)
    else:
        field, body = f"Content-Length: {len(CUT)}", CUT
    clean.ask(request(origin, "/", "Content-Encoding: gzip", field, body=body, method="POST"))
    event = clean.event(rule="upload-unreadable")
    assert "ends before" in event["details"]["reason"]
    assert event["details"].get("enforced") is (None if enforced else False)
    arrived = b"".join(map(bytes, origin.conversations))
    whole = CUT if framing == "length" else CUT + b"\r\n0\r\n\r\n"
    assert (whole in arrived) is not enforced


def test_a_harmless_plain_upload_arrives_as_it_was(clean: Proxy, origin: Upstream) -> None:
    body = b"tstkey_ is how they begin " * 9000
    said = clean.ask(request(origin, "/", f"Content-Length: {len(body)}", body=body, method="POST"))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"".join(map(bytes, origin.conversations)).endswith(body)
