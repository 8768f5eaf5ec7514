from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.enforce.egress.engine_front import Front, Target, policy_of, tls_rule
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "test-ca")


@pytest.fixture(scope="module")
def upstream(authority: Authority) -> Iterator[Http1Upstream]:
    server = Http1Upstream(authority.server_context("api.good.test"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def module_front(authority: Authority, upstream: Http1Upstream) -> Iterator[Front]:
    rule = tls_rule(
        "api.good.test", upstream.port, methods=("GET", "HEAD", "POST"), paths=("/simple/**", "/ws", "/big/**")
    )
    front = Front(policy_of(rule), authority.file)
    yield front
    front.close()


@pytest.fixture
def front(module_front: Front, upstream: Http1Upstream) -> Front:
    upstream.reset()
    module_front.journal.posted.clear()
    module_front.target = Target("api.good.test", upstream.port)
    return module_front


def test_an_allowed_request_reaches_the_upstream_and_leaves_no_denial(front: Front, upstream: Http1Upstream) -> None:
    response, body = front.get("GET", "/simple/pkg/")
    assert (response.status, body.split()[:2]) == (200, [b"GET", b"/simple/pkg/"])
    assert upstream.requests == [("GET", "/simple/pkg/", f"api.good.test:{upstream.port}")]
    assert upstream.sni == ["api.good.test"]
    assert front.journal.posted == []


def test_a_forbidden_path_is_refused(front: Front, upstream: Http1Upstream) -> None:
    response, body = front.get("GET", "/admin")
    assert response.status == 403
    assert upstream.requests == []
    print(response.headers, body, front.journal.wait())
