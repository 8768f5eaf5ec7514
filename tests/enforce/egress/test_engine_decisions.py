"""Requests that are refused: by the policy, or because they could mean two things."""

from __future__ import annotations

import json

import pytest

from agent.policy.model import EgressSection, Layer, Mode, Policy
from agent.record.event import EventType, Result
from tests.enforce.egress.engine_front import HOST, Front, Target, exchange, tls_rule, until
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream


def test_a_request_outside_the_rule_is_refused_with_the_rule_and_recorded(
    front: Front, upstream: Http1Upstream
) -> None:
    response, body = front.get("GET", "/admin")
    assert (response.status, response.headers["X-Parhelia-Rule"]) == (403, "egress-default")
    assert body.startswith(b"parhelia: denied by egress-default: GET /admin on ")
    (event,) = front.journal.wait()
    assert (event.type, event.result, event.actor) == (
        EventType.NETWORK_EGRESS_BLOCKED,
        Result.DENIED,
        "session:test",
    )
    assert (event.resource, event.source_ip) == (f"{HOST}:{upstream.port}", "192.0.2.7")
    details = event.details
    assert {key: details[key] for key in ("rule", "method", "path", "mechanism", "request_id", "stage")} == {
        "rule": "egress-default",
        "method": "GET",
        "path": "/admin",
        "mechanism": "engine",
        "request_id": f"{front.journal.connection}-1",
        "stage": "request",
    }
    assert upstream.connections == 0


def test_a_client_that_accepts_json_gets_the_contract_s_body(front: Front) -> None:
    response, body = front.get("DELETE", "/simple/x", Accept="text/html, application/json;q=0.9")
    assert (response.status, response.headers["Content-Type"]) == (403, "application/json")
    told = json.loads(body)
    assert (told["verdict"], told["rule"]) == ("deny", "egress-default")
    assert told["request_id"] == f"{front.journal.connection}-1"
    assert set(told) == {"verdict", "rule", "reason", "instead", "request_id"}


def test_a_refused_head_request_has_no_body_and_the_connection_goes_on(front: Front) -> None:
    client = front.client()
    client.request("HEAD", "/admin")
    refused = client.getresponse()
    assert (refused.status, refused.read()) == (403, b"")
    client.request("GET", "/simple/x")
    assert client.getresponse().status == 200
    client.close()


ATTACKS = [
    # name, request line, header lines ("-": no Host of ours), status, rule
    ("another Host", "GET /simple/x HTTP/1.1", ["Host: evil.test"], 421, "authority-mismatch"),
    ("Host of another allowed host", "GET /simple/x HTTP/1.1", ["Host: other.test"], 421, "authority-mismatch"),
    ("Host on another port", "GET /simple/x HTTP/1.1", [f"Host: {HOST}:444"], 421, "authority-mismatch"),
    ("Host without the port", "GET /simple/x HTTP/1.1", [f"Host: {HOST}"], 421, "authority-mismatch"),
    ("Host with a user", "GET /simple/x HTTP/1.1", [f"Host: {HOST}@evil.test"], 421, "authority-mismatch"),
    ("no Host", "GET /simple/x HTTP/1.1", ["-"], 421, "authority-mismatch"),
    ("an empty Host", "GET /simple/x HTTP/1.1", ["Host:"], 421, "authority-mismatch"),
    ("an absolute target elsewhere", "GET https://evil.test/simple/x HTTP/1.1", [], 421, "authority-mismatch"),
    ("CONNECT inside", "CONNECT evil.test:443 HTTP/1.1", [], 403, "connect-inside-tunnel"),
    ("TRACE", "TRACE /simple/x HTTP/1.1", [], 403, "method-refused"),
    ("HTTP/2 that was not agreed on", "PRI * HTTP/2.0", ["-"], 400, "malformed-request"),
    ("a lower-case method", "get /simple/x HTTP/1.1", [], 400, "malformed-request"),
    ("an overridden method", "POST /simple/x HTTP/1.1", ["X-HTTP-Method-Override: DELETE"], 403, "method-override"),
    ("one by underscores", "POST /simple/x HTTP/1.1", ["X_HTTP_Method_Override: DELETE"], 403, "method-override"),
    ("an overridden path", "GET /simple/x HTTP/1.1", ["X-Original-URL: /admin"], 403, "path-override"),
    ("another one", "GET /simple/x HTTP/1.1", ["X_Rewrite_Url: /admin"], 403, "path-override"),
    ("chunks by an underscore", "POST /simple/x HTTP/1.1", ["Transfer_Encoding: chunked"], 400, "malformed-request"),
    ("a mixed-case method", "Get /simple/x HTTP/1.1", [], 400, "malformed-request"),
    ("a method with a tab", "GE\x01T /simple/x HTTP/1.1", [], 400, "malformed-request"),
    ("dot segments", "GET /simple/../admin HTTP/1.1", [], 403, "egress-default"),
    ("encoded dots", "GET /simple/%2e%2e/admin HTTP/1.1", [], 403, "egress-default"),
    ("an encoded slash", "GET /simple/..%2fadmin HTTP/1.1", [], 403, "egress-default"),
    ("dots encoded twice", "GET /simple/%252e%252e/admin HTTP/1.1", [], 403, "egress-default"),
    ("backslashes", "GET /simple/..\\admin HTTP/1.1", [], 403, "egress-default"),
    ("path parameters", "GET /simple/..;/admin HTTP/1.1", [], 403, "egress-default"),
    ("a double slash", "GET /simple//../admin HTTP/1.1", [], 403, "egress-default"),
    ("a fragment", "GET /simple/x#/../admin HTTP/1.1", [], 400, "malformed-request"),
    ("a raw byte in the path", "GET /simple/\xff HTTP/1.1", [], 400, "malformed-request"),
    ("asterisk form", "GET * HTTP/1.1", [], 400, "malformed-request"),
    ("HTTP/2 said in HTTP/1", "GET /simple/x HTTP/2.0", [], 400, "malformed-request"),
    ("HTTP/2 with prior knowledge", "PRI * HTTP/2.0", [], 400, "malformed-request"),
    ("a folded header", "GET /simple/x HTTP/1.1", ["X: a", " b"], 400, "malformed-request"),
    ("a bare CR in a header", "GET /simple/x HTTP/1.1", ["X: a\rHost: evil.test"], 400, "malformed-request"),
    ("a NUL in a header", "GET /simple/x HTTP/1.1", ["X: a\0b"], 400, "malformed-request"),
    ("length and chunks", "POST /simple/x HTTP/1.1", ["Content-Length: 3", "Transfer-Encoding: chunked"], 400, None),
    ("two lengths", "POST /simple/x HTTP/1.1", ["Content-Length: 3", "Content-Length: 4"], 400, None),
    ("an odd coding", "POST /simple/x HTTP/1.1", ["Transfer-Encoding: xchunked"], 400, None),
    ("no request at all", "\x00\x01\x02 nothing", [], 400, None),
    ("another protocol", "SSH-2.0-OpenSSH_9.2", ["-"], 400, None),
]


@pytest.mark.parametrize(
    ("line", "lines", "status", "rule"), [case[1:] for case in ATTACKS], ids=[c[0] for c in ATTACKS]
)
def test_a_request_with_two_meanings_is_refused_and_recorded_and_nothing_leaves(
    front: Front, upstream: Http1Upstream, line: str, lines: list[str], status: int, rule: str | None
) -> None:
    said = front.raw(front.head(line, *lines, "Connection: close") + b"abc", sni="")
    assert said.split(b" ")[1:2] == [str(status).encode()], said
    event = front.journal.wait()[0]
    assert event.details["rule"] == (rule or "malformed-request")
    assert event.result is Result.DENIED
    assert upstream.connections == 0


def test_two_host_headers_are_refused(front: Front, upstream: Http1Upstream) -> None:
    same = f"Host: {HOST}:{upstream.port}"
    said = front.raw(front.head("GET /simple/x HTTP/1.1", same, "Host: evil.test", "Connection: close"))
    assert b" 421 " in said.split(b"\r\n")[0]
    assert front.journal.wait()[0].details["rule"] == "authority-mismatch"
    assert upstream.connections == 0


@pytest.mark.parametrize("value", ["h2c", "H2C", "h2c, websocket", "tcp"])
def test_any_other_upgrade_is_taken_out_of_the_request(front: Front, upstream: Http1Upstream, value: str) -> None:
    said = front.raw(
        front.head(
            "GET /h2c HTTP/1.1",
            f"Upgrade: {value}",
            "Connection: Upgrade, close, HTTP2-Settings",
            "HTTP2-Settings: AA",
        )
    )
    assert said.startswith(b"HTTP/1.1 200 ")
    assert upstream.headers[0].keys() & {"upgrade", "http2-settings"} == set()
    assert upstream.headers[0]["connection"] == "close"


def test_no_field_that_was_judged_is_named_as_one_that_ends_at_the_next_hop(
    front: Front, upstream: Http1Upstream
) -> None:
    front.raw(front.head("GET /simple/x HTTP/1.1", "X-Judged: 1", "Connection: X-Judged, close"))
    assert (upstream.headers[0]["x-judged"], upstream.headers[0]["connection"]) == ("1", "close")


def test_a_plain_request_is_decided_and_answered_once_per_connection(
    front: Front, plain_upstream: Http1Upstream
) -> None:
    front.target = Target("plain.test", plain_upstream.port, kind="absolute", prefix=40)
    authority = f"plain.test:{plain_upstream.port}"
    with front.connect() as sock:
        said = exchange(
            sock,
            f"GET http://{authority}/simple/x HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: x\r\n\r\n".encode(),
        )
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in said.lower()
    assert plain_upstream.requests == [("GET", "/simple/x", authority)]
    assert "proxy-authorization" not in plain_upstream.headers[0]


@pytest.mark.parametrize(
    ("target", "host", "status", "rule"),
    [
        ("http://plain.test:{port}/admin", "plain.test:{port}", 403, "egress-default"),
        ("http://evil.test/simple/x", "evil.test", 421, "authority-mismatch"),
        ("http://plain.test:{port}/simple/x", "evil.test", 421, "authority-mismatch"),
        ("http://plain.test/simple/x", "plain.test:{port}", 421, "authority-mismatch"),
    ],
)
def test_a_plain_request_is_held_to_its_identity(
    front: Front, plain_upstream: Http1Upstream, target: str, host: str, status: int, rule: str
) -> None:
    front.target = Target("plain.test", plain_upstream.port, kind="absolute")
    text = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".format(port=plain_upstream.port)
    with front.connect() as sock:
        said = exchange(sock, text.encode())
    assert said.split(b" ")[1] == str(status).encode()
    assert front.journal.wait()[0].details["rule"] == rule
    assert plain_upstream.connections == 0


def test_a_denial_stands_where_it_cannot_be_recorded(front: Front, upstream: Http1Upstream) -> None:
    front.journal.broken = True
    try:
        response, _ = front.get("GET", "/admin")
        assert response.status == 403
        assert front.get("GET", "/simple/x")[0].status == 200
    finally:
        front.journal.broken = False


def observing(upstream: Http1Upstream) -> Policy:
    rule = tls_rule(HOST, upstream.port, paths=("/simple/**",))
    section = EgressSection(mode=Mode.OBSERVE, allow=(rule,))
    return Policy(layers=(Layer(source="t", egress=section),), digest="e" * 64)


def test_observe_mode_lets_through_what_it_records_and_only_what_it_could_record(
    authority: Authority, upstream: Http1Upstream
) -> None:
    upstream.reset()
    front = Front(observing(upstream), authority.file)
    try:
        front.target = Target(HOST, upstream.port)
        assert front.get("GET", "/admin")[0].status == 200
        (event,) = front.journal.accepted
        assert (event.result, event.details["enforced"], event.details["path"]) == (Result.SUCCESS, False, "/admin")
        front.journal.broken = True
        response, _ = front.get("GET", "/admin")
        assert (response.status, response.headers["X-Parhelia-Rule"]) == (403, "audit-unavailable")
        assert len(upstream.requests) == 1
    finally:
        front.close()


def test_the_engines_decisions_are_timed_as_the_fronts_are(front: Front) -> None:
    before = sum(front.timings.counts)
    for _ in range(3):
        assert front.get("GET", "/simple/x")[0].status == 200
    until(lambda: sum(front.timings.counts) >= before + 3, "three timed decisions")
