from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from agent.enforce.egress.ca import CA_DAYS, LEAF_DAYS, MAX_LEAVES, MAX_RENEWALS, InterceptionCA
from agent.policy.model import HostRule, Where

WHERE = Where("t.yaml", 1, 1)


def rule(pattern: str, **more: object) -> HostRule:
    return HostRule(id=pattern, pattern=pattern, where=WHERE, **more)  # type: ignore[arg-type]


def verify(
    ca: InterceptionCA, leaf: x509.Certificate, host: str, between: Iterable[x509.Certificate] = ()
) -> list[x509.Certificate]:
    verifier = PolicyBuilder().store(Store([ca.certificate])).build_server_verifier(x509.DNSName(host))
    return verifier.verify(leaf, list(between))


def handshake(ca: InterceptionCA, host: str) -> None:
    """A real handshake in memory: OpenSSL as the session's clients use it against the leaf for `host`."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(server_context, ca.leaf(host), ca.leaf_key)
    client_context = ssl.create_default_context(cadata=ca.pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    pending = [client, server]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert pending == []


def load(context: ssl.SSLContext, leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(leaf.public_bytes(serialization.Encoding.PEM))
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.flush()
        context.load_cert_chain(file.name)


@pytest.mark.parametrize("host", ["api.good.test", "a.wild.test", "a.b.wild.test"])
def test_a_leaf_for_an_intercepted_host_is_trusted_by_two_independent_verifiers(host: str) -> None:
    ca = InterceptionCA(("api.good.test", "*.wild.test"))
    verify(ca, ca.leaf(host), host)
    handshake(ca, host)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_leaf_for_an_intercepted_address_is_trusted_as_that_address(address: str) -> None:
    handshake(InterceptionCA(("api.good.test", address)), address)


@pytest.mark.parametrize("host", ["evil.test", "good.test", "xapi.good.test", "192.0.2.7", "2001:db8::7"])
def test_a_leaf_for_any_other_host_is_worthless(host: str) -> None:
    ca = InterceptionCA(("api.good.test",))
    with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
        handshake(ca, host)


def test_an_address_in_the_policy_does_not_open_the_other_addresses_or_any_name() -> None:
    ca = InterceptionCA(("192.0.2.7",))
    for host in ("192.0.2.8", "evil.test"):
        with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
            handshake(ca, host)


def test_a_ca_for_nothing_vouches_for_nothing() -> None:
    ca = InterceptionCA(())
    for host in ("api.good.test", "192.0.2.7"):
        with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
            handshake(ca, host)


def test_a_leaf_is_no_ca() -> None:
    ca = InterceptionCA(("good.test",))
    constraints = ca.leaf("good.test").extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    length = ca.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    assert length == MAX_RENEWALS


def test_the_ca_is_short_lived_constrained_and_its_key_is_not_the_leaves_key() -> None:
    ca = InterceptionCA(("good.test",))
    leaf = ca.leaf("good.test")
    now = datetime.now(UTC)
    assert ca.certificate.not_valid_after_utc - now < timedelta(days=CA_DAYS + 1)
    assert leaf.not_valid_after_utc - now < timedelta(days=LEAF_DAYS + 1)
    assert leaf.public_key() != ca.certificate.public_key()
    constraints = ca.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("good.test")]
    assert constraints.value.excluded_subtrees == [
        x509.IPAddress(ip_network("0.0.0.0/0")),
        x509.IPAddress(ip_network("::/0")),
    ]


def test_two_cas_share_no_key_and_a_leaf_of_one_is_not_trusted_by_the_other() -> None:
    one, other = InterceptionCA(("good.test",)), InterceptionCA(("good.test",))
    with pytest.raises(VerificationError):
        verify(other, one.leaf("good.test"), "good.test")


def test_leaves_are_kept_and_their_number_is_bounded() -> None:
    ca = InterceptionCA(("*.good.test",))
    first = ca.leaf("x.good.test")
    assert ca.leaf("x.good.test") is first
    for number in range(MAX_LEAVES):
        ca.leaf(f"n{number}.good.test")
    assert ca.leaf("x.good.test") is not first
    assert len(ca._leaves) == MAX_LEAVES


def test_the_published_pem_holds_one_certificate_and_no_key() -> None:
    pem = InterceptionCA(("good.test",)).pem
    assert pem.count("BEGIN") == 1
    assert "KEY" not in pem


def test_a_successor_continues_the_ca_that_clients_have_loaded() -> None:
    first = InterceptionCA(("good.test",))
    successor = InterceptionCA(("other.test",), kept=first.kept)
    assert successor.pem == first.pem
    verify(first, successor.leaf("good.test"), "good.test")
    assert successor.leaf_key.private_numbers() != first.leaf_key.private_numbers()


def test_one_with_another_key_is_trusted_by_who_knows_it_and_by_the_chain_by_who_knows_an_older_one() -> None:
    cas = [InterceptionCA(("good.test",))]
    for _ in range(3):
        cas.append(InterceptionCA(("good.test",), kept=cas[-1].kept, renew=True))
    last, host = cas[-1], "good.test"
    assert len({ca.kept["key"] for ca in cas}) == len({ca.pem for ca in cas}) == len(cas)
    chain = x509.load_pem_x509_certificates(last.chain.encode())
    verify(last, last.leaf(host), host)
    for older in cas[:-1]:
        verify(older, last.leaf(host), host, chain)
        with pytest.raises(VerificationError):
            verify(older, last.leaf(host), host)
        with pytest.raises(VerificationError):
            verify(last, older.leaf(host), host, x509.load_pem_x509_certificates((older.chain + older.pem).encode()))


def test_however_often_it_is_renewed_the_chain_is_bounded_and_names_stay_constrained() -> None:
    ca = first = InterceptionCA(("good.test",))
    for _ in range(MAX_RENEWALS + 2):
        ca = InterceptionCA(("good.test",), kept=ca.kept, renew=True)
        if ca.chain.count("BEGIN") < MAX_RENEWALS:
            verify(first, ca.leaf("good.test"), "good.test", x509.load_pem_x509_certificates(ca.chain.encode()))
    chain = x509.load_pem_x509_certificates(ca.chain.encode())
    assert len(chain) == MAX_RENEWALS
    for certificate in chain:
        names = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        assert names.permitted_subtrees == [x509.DNSName("good.test")]


@pytest.mark.parametrize("kept", [{}, {"key": "", "certificate": ""}, {"key": "x"}])
def test_what_is_no_ca_is_not_continued(kept: dict[str, str]) -> None:
    with pytest.raises((KeyError, ValueError)):
        InterceptionCA(("good.test",), kept=kept)
