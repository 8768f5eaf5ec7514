"""Conditions of the policy on real connections through the engine: what does not fit never reaches the upstream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.policy.model import Condition, GitRepositories, Mode
from tests.enforce.egress.engine_front import HOST, Front, Target, policy_of, tls_rule, until
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream


@pytest.fixture(scope="module")
def module_front(authority: Authority, session_upstream: Http1Upstream) -> Iterator[Front]:
    port = session_upstream.port
    rules = (
        tls_rule(HOST, port, paths=("/versioned",), headers=(Condition("api-version", ("2*",)),)),
        tls_rule(HOST, port, paths=("/asked", "/closed"), query=(Condition("a", ("1",)),)),
        tls_rule(HOST, port, git=GitRepositories(fetch=("example/*",), push=("example/project",))),
    )
    deny = (
        replace(tls_rule(HOST, port, headers=(Condition("x-beta", ("computer*",)),)), id="no-beta", reason="not here"),
        replace(tls_rule(HOST, port, query=(Condition("admin", ("1",)),)), id="no-admin", reason="not here"),
    )
    front = Front(policy_of(*rules, deny=deny), authority.file)
    yield front
    front.close()


@pytest.fixture
def ruled(module_front: Front, upstream: Http1Upstream) -> Front:
    module_front.journal.renew()
    module_front.target = Target(HOST, upstream.port)
    return module_front


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/versioned", {"Api-Version": "2023-06-01"}),
        ("GET", "/asked?a=1", {}),
        ("GET", "/asked?b=2&%61=1", {}),
        ("GET", "/example/x.git/info/refs?service=git-upload-pack", {}),
        ("POST", "/example/x.git/git-upload-pack", {}),
        ("POST", "/example/project.git/git-receive-pack", {}),
    ],
)
def test_what_fits_reaches_the_upstream(
    ruled: Front, upstream: Http1Upstream, method: str, path: str, headers: dict[str, str]
) -> None:
    response, _ = ruled.get(method, path, **headers)
    assert response.status == 200
    assert [(verb, target) for verb, target, _ in upstream.requests] == [(method, path)]
    assert ruled.journal.posted == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "rule"),
    [
        ("GET", "/versioned", {}, "egress-default"),
        ("GET", "/versioned", {"Api-Version": "1999"}, "egress-default"),
        ("GET", "/versioned", {"Api-Version": "2023, 1999"}, "egress-default"),
        ("GET", "/versioned", {"Api-Version": "2023", "X-Beta": "other, Computer-use"}, "no-beta"),
        ("GET", "/asked", {}, "egress-default"),
        ("GET", "/asked?a=2", {}, "egress-default"),
        ("GET", "/asked?a=1&a=2", {}, "egress-default"),
        ("GET", "/asked?a=1&admin=%31", {}, "no-admin"),
        ("GET", "/asked?a=1;admin=1", {}, "no-admin"),
        ("POST", "/example/x.git/git-receive-pack", {}, "egress-default"),
        ("GET", "/example/x.git/info/refs?service=git-receive-pack", {}, "egress-default"),
        ("POST", "/evil/x.git/git-upload-pack", {}, "egress-default"),
        ("GET", "/example/x.git/info/refs", {}, "egress-default"),
        ("GET", "/example/x.git/objects/00/11", {}, "egress-default"),
        ("POST", "/example/x.git/info/lfs/objects/batch", {}, "egress-default"),
    ],
)
def test_what_does_not_fit_is_refused_and_on_record_and_never_gets_there(
    ruled: Front, upstream: Http1Upstream, method: str, path: str, headers: dict[str, str], rule: str
) -> None:
    client = ruled.client()
    client.request(method, path, None, headers)
    response = client.getresponse()
    assert (response.status, response.headers["X-Parhelia-Rule"]) == (403, rule)
    client.close()
    (event,) = ruled.journal.wait()
    assert (event.details["rule"], str(event.result)) == (rule, "denied")
    assert upstream.requests == []


def test_a_field_that_comes_twice_must_fit_twice(ruled: Front, upstream: Http1Upstream) -> None:
    lines = ("Api-Version: 2023", "Api-Version: 1999", "Connection: close")
    assert ruled.raw(ruled.head("GET /versioned HTTP/1.1", *lines)).startswith(b"HTTP/1.1 403 ")
    (event,) = ruled.journal.wait()
    assert (event.details["rule"], str(event.result)) == ("egress-default", "denied")
    assert upstream.requests == []


def test_the_conditions_of_an_observed_rule_are_recorded_and_let_pass(
    authority: Authority, upstream: Http1Upstream
) -> None:
    watched = replace(tls_rule(HOST, upstream.port, methods=("GET",), mode=Mode.OBSERVE), id="watched")
    front = Front(policy_of(watched), authority.file)
    front.target = Target(HOST, upstream.port)
    try:
        assert front.get("GET", "/simple/x")[0].status == 200
        assert front.journal.accepted == []
        assert front.get("POST", "/simple/x", b"x")[0].status == 200
        until(lambda: len(front.journal.accepted) == 1, "the record of the observation")
        (event,) = front.journal.accepted
    finally:
        front.close()
    assert (event.details["rule"], event.details["enforced"], str(event.result)) == ("watched", False, "success")
    assert [verb for verb, _, _ in upstream.requests] == ["GET", "POST"]
