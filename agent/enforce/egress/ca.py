"""The interception CA: made in memory when a session starts, gone when it ends.

Rules kept here: the CA's private key is in no file; it leaves this object for one purpose (`kept`): the guard keeps it,
as it keeps the secrets, for a worker that must take the place of one that died. Leaves have a key of their own, so that
the CA's key signs certificates and nothing else; the CA can vouch only for hosts that the policy sends through the
engine (RFC 5280 section 4.2.1.10, name constraints), whoever gets hold of it; it is short-lived. One that takes the
place of another (a restored agent's) has a key of its own; the old key's last act is to vouch for it, so that programs
which have read the old certificate go on.

P-256 for both keys: making an RSA key costs 135-290 ms, and every TLS client of this decade speaks ECDSA.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 90
LEAF_DAYS = 14
CLOCK_SKEW = timedelta(days=1)
MAX_LEAVES = 512
_MAX_NAME = 64  # ub-common-name, RFC 5280 appendix A.1
NEVER = "invalid"  # RFC 2606: never a host of anybody
MAX_RENEWALS = 8
"""So many CAs can follow the one whose certificate a program has read."""


class InterceptionCA:
    """Signs leaves for intercepted hosts. `patterns` as from `agent.policy.egress_match.intercepted`; empty: it vouches
    for nothing. `kept`: that of a CA which this one continues, or, to `renew` it, follows with another key. Raises
    KeyError, ValueError where it is none."""

    def __init__(
        self,
        patterns: tuple[str, ...],
        name: str = "Parhelia session interception CA",
        *,
        kept: Mapping[str, str] | None = None,
        renew: bool = False,
    ) -> None:
        self.leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaves: OrderedDict[str, x509.Certificate] = OrderedDict()
        self.chain = "" if kept is None else kept["chain"]
        """By which those who know only a CA before this one get to it (PEM), the nearest first."""
        if kept is not None and not renew:
            self._key = _key_of(kept)
            self.certificate = x509.load_pem_x509_certificate(kept["certificate"].encode())
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraints = _constraints(patterns)
        if kept is None:
            self.certificate = self._sign(_named(name), _named(name), self._key, constraints)
            return
        old = x509.load_pem_x509_certificate(kept["certificate"].encode())
        new = _named(f"{name} {x509.random_serial_number():x}"[:_MAX_NAME])  # one name, one key: chains are built by it
        self.certificate = self._sign(new, new, self._key, constraints)
        follows = self._sign(new, old.subject, _key_of(kept), constraints)
        self.chain = "".join([_pem(follows), *_certificates(self.chain)][:MAX_RENEWALS])

    @property
    def pem(self) -> str:
        """The CA certificate (never the key)."""
        return _pem(self.certificate)

    @property
    def kept(self) -> dict[str, str]:
        """Certificate, private key and `chain` (PEM), for a successor of this object in another agent process."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"certificate": self.pem, "key": key.decode("ascii"), "chain": self.chain}

    def leaf(self, host: str) -> x509.Certificate:
        """A certificate for exactly `host` (normalised) and `leaf_key`; `MAX_LEAVES` of them are kept, a day each."""
        now = datetime.now(UTC)
        kept = self._leaves.pop(host, None)
        if kept is None or kept.not_valid_after_utc - now < timedelta(days=LEAF_DAYS - 1):
            kept = self._sign_leaf(host, now)
        self._leaves[host] = kept
        if len(self._leaves) > MAX_LEAVES:
            self._leaves.popitem(last=False)
        return kept

    def _sign(
        self, subject: x509.Name, issuer: x509.Name, by: ec.EllipticCurvePrivateKey, constraints: x509.NameConstraints
    ) -> x509.Certificate:
        """A certificate of this CA."""
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=MAX_RENEWALS), critical=True)
            .add_extension(_key_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
            .add_extension(constraints, critical=True)
            .sign(by, hashes.SHA256())
        )

    def _sign_leaf(self, host: str, now: datetime) -> x509.Certificate:
        issuer_id = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            # no common name: clients read the alternative names, which are then critical (RFC 5280 section 4.2.1.6)
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(self.leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(min(now + timedelta(days=LEAF_DAYS), self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _certificates(chain: str) -> list[str]:
    return [_pem(each) for each in x509.load_pem_x509_certificates(chain.encode())] if chain else []


def _key_of(kept: Mapping[str, str]) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(kept["key"].encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("no key of an interception CA")
    return key


def _constraints(patterns: tuple[str, ...]) -> x509.NameConstraints:
    """A name type without any permitted subtree would be unconstrained, so each type gets one or is excluded whole."""
    names: list[x509.GeneralName] = []
    addresses: list[x509.GeneralName] = []
    for pattern in patterns:
        literal = _literal(pattern)
        if literal is not None:
            addresses.append(x509.IPAddress(ip_network(literal)))
        else:
            # "example.org" covers itself and everything below (RFC 5280): the nearest form of "*.example.org"
            names.append(x509.DNSName(pattern.removeprefix("*.")))
    excluded: list[x509.GeneralName] = []
    if not addresses:
        excluded = [x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))]
    return x509.NameConstraints(
        permitted_subtrees=(names or [x509.DNSName(NEVER)]) + addresses,
        excluded_subtrees=excluded or None,
    )


def _literal(host: str) -> str | None:
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _general_name(host: str) -> x509.GeneralName:
    literal = _literal(host)
    return x509.DNSName(host) if literal is None else x509.IPAddress(ip_address(literal))


def _key_usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
