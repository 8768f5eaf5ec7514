"""What tests of several files share: of the engine one upstream of each kind and one worker for as long as they run,
and the world of a session whose sockets the guard makes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.linux import seccomp
from agent.policy.request import Protocol
from tests.conftest import require
from tests.enforce.egress.connected import World
from tests.enforce.egress.engine_front import HOST, METHODS, PATHS, Front, Target, allow, policy_of
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream, Http2Upstream


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that upstreams are verified against; its file is readable for root only, as a site's own could be."""
    made = Authority(tmp_path_factory.mktemp("ca"), "test-ca")
    made.file.chmod(0o600)
    return made


@pytest.fixture(scope="session")
def session_upstream(authority: Authority) -> Iterator[Http1Upstream]:
    server = Http1Upstream(authority.server_context(HOST, "127.0.0.1"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def session_plain_upstream() -> Iterator[Http1Upstream]:
    server = Http1Upstream(None)
    yield server
    server.close()


@pytest.fixture(scope="session")
def session_h2_upstream(authority: Authority) -> Iterator[Http2Upstream]:
    server = Http2Upstream(authority.server_context(HOST, http2=True))
    yield server
    server.close()


@pytest.fixture(scope="session")
def session_front(
    authority: Authority,
    session_upstream: Http1Upstream,
    session_plain_upstream: Http1Upstream,
    session_h2_upstream: Http2Upstream,
) -> Iterator[Front]:
    rules = [
        allow(host, port, protocol=protocol, methods=METHODS, paths=PATHS)
        for host, port, protocol in (
            (HOST, session_upstream.port, Protocol.TLS),
            (HOST, session_h2_upstream.port, Protocol.TLS),
            ("127.0.0.1", session_upstream.port, Protocol.TLS),
            ("other.test", session_upstream.port, Protocol.TLS),
            ("plain.test", session_plain_upstream.port, Protocol.HTTP),
        )
    ]
    front = Front(policy_of(*rules), authority.file)
    yield front
    front.close()


@pytest.fixture
def upstream(session_upstream: Http1Upstream) -> Http1Upstream:
    session_upstream.reset()
    return session_upstream


@pytest.fixture
def plain_upstream(session_plain_upstream: Http1Upstream) -> Http1Upstream:
    session_plain_upstream.reset()
    return session_plain_upstream


@pytest.fixture
def h2_upstream(session_h2_upstream: Http2Upstream) -> Http2Upstream:
    session_h2_upstream.reset()
    return session_h2_upstream


@pytest.fixture
def front(session_front: Front, upstream: Http1Upstream) -> Front:
    """The engine, with an empty journal; connections go to `upstream` until the test says otherwise."""
    session_front.journal.renew()
    session_front.target = Target(HOST, upstream.port)
    return session_front


@pytest.fixture
def world() -> Iterator[World]:
    require(os.geteuid() == 0, "root, to give the session a uid of its own")
    require(seccomp.socket_making_available(), "seccomp user notification with ADDFD_FLAG_SEND")
    made = World()
    yield made
    made.close()
