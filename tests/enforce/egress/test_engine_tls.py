"""TLS on both sides: which names, which versions, whom the engine trusts and who trusts it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.enforce.egress.engine_front import HOST, Front, Target, exchange, policy_of, tls_rule
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream


@pytest.mark.parametrize("sni", ["evil.test", "other.test", "good.test", f"x.{HOST}"])
def test_a_tls_name_other_than_the_tunnel_s_is_closed_before_any_upstream_byte(
    front: Front, upstream: Http1Upstream, sni: str
) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        front.tls(sni)
    (event,) = front.journal.wait()
    details = event.details
    assert (details["rule"], details["sni"], details["request_id"]) == ("sni-mismatch", sni, front.journal.connection)
    assert event.resource == f"{HOST}:{upstream.port}"
    assert upstream.connections == 0


def test_a_handshake_that_names_no_host_is_refused(front: Front, upstream: Http1Upstream) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        front.tls(None)
    assert front.journal.wait()[0].details["rule"] == "sni-missing"
    assert upstream.connections == 0


def test_a_tunnel_to_an_address_literal_needs_no_name_and_is_verified_as_that_address(
    front: Front, upstream: Http1Upstream
) -> None:
    front.target = Target("127.0.0.1", upstream.port)
    context = ssl.create_default_context(cadata=front.ca_pem)
    with context.wrap_socket(front.connect(), server_hostname="127.0.0.1") as sock:
        said = exchange(
            sock, front.head("GET /simple/x HTTP/1.1", f"Host: 127.0.0.1:{upstream.port}", "Connection: close")
        )
    assert said.startswith(b"HTTP/1.1 200 ")
    assert upstream.requests == [("GET", "/simple/x", f"127.0.0.1:{upstream.port}")]


def test_the_session_s_client_refuses_a_certificate_for_a_host_outside_the_policy(front: Front) -> None:
    front.target = Target("bank.test", 443)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        front.tls()


def test_an_old_tls_version_is_not_spoken_to_the_client(front: Front) -> None:
    context = ssl.create_default_context(cadata=front.ca_pem)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(front.connect(), server_hostname=HOST)


BAD_UPSTREAMS = [
    ("an expired certificate", {"days": -1}, "expired"),
    ("a certificate for another host", {"name": "evil.test"}, "mismatch"),
    ("a certificate of an unknown CA", {"stranger": True}, "issuer certificate"),
    ("nothing newer than TLS 1.1", {"old": True}, "TLS version"),
]


@pytest.mark.parametrize(
    ("how", "words"), [case[1:] for case in BAD_UPSTREAMS], ids=[case[0] for case in BAD_UPSTREAMS]
)
def test_an_upstream_that_cannot_be_trusted_gets_no_request(
    authority: Authority, tmp_path: Path, how: dict[str, object], words: str
) -> None:
    signer = Authority(tmp_path, "stranger") if "stranger" in how else authority
    context = signer.server_context(str(how.get("name", HOST)), days=int(str(how.get("days", 1))))
    if "old" in how:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    bad = Http1Upstream(context)
    front = Front(policy_of(tls_rule(HOST, bad.port, paths=("/**",))), authority.file)
    try:
        front.target = Target(HOST, bad.port)
        response, body = front.get("POST", "/simple/x", b"secret")
        assert response.status == 502
        assert words.encode() in body
        assert bad.requests == []
    finally:
        front.close()
        bad.close()
