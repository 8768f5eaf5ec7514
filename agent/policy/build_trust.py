"""Certificate authorities that a policy adds to the system's, for upstreams that certify themselves by a private one.

Rules kept here: only the first layer can add one (it opens, and a further layer only narrows); what is no authority's
certificate is a problem, a private key above all. Whether a certificate has run out is not seen here: there is no
clock; OpenSSL sees it with every connection.

Sources: RFC 7468 (PEM), RFC 5280 4.2.1.9 (basic constraints).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from agent.policy.build import Bench
from agent.policy.shape import Text, Value
from agent.policy.words import shown

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+\n-----END CERTIFICATE-----")
_FIX: Final = "paste the authority's certificate below 'trust:', after '- |', from BEGIN CERTIFICATE to END CERTIFICATE"


def authorities(bench: Bench, values: Sequence[Value], *, first: bool) -> tuple[str, ...]:
    """The certificates, each one PEM block in its one spelling, sorted."""
    if values and not first:
        fix = "move it to the first layer: a further one can only narrow"
        bench.fault(values[0].where, "an authority to trust in a further layer", fix)
        return ()
    found = [pem for value in values if isinstance(value, Text) for pem in _certificates(bench, value)]
    return tuple(sorted(set(found)))


def _certificates(bench: Bench, given: Text) -> list[str]:
    if "PRIVATE KEY" in given.value:
        bench.fault(given.where, "a private key where a certificate is meant", "remove it, and replace that key")
        return []
    rest = _BLOCK.sub("", given.value)
    blocks = _BLOCK.findall(given.value)
    if not blocks or rest.strip():
        bench.fault(given.where, "this is not a certificate in PEM and nothing else", _FIX)
        return []
    return [pem for block in blocks if (pem := _authority(bench, given, block)) is not None]


def _authority(bench: Bench, given: Text, block: str) -> str | None:
    from cryptography import x509  # 30 ms that only a policy with `trust:` pays
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        certificate = x509.load_pem_x509_certificate(block.encode())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    except ValueError:
        bench.fault(given.where, "the certificate cannot be read", _FIX)
        return None
    if constraints is None or not constraints.ca:
        bench.fault(
            given.where,
            "the certificate is not an authority's (no CA:TRUE)",
            "give the one that has signed the server's",
        )
        return None
    return certificate.public_bytes(Encoding.PEM).decode()


def subject(pem: str) -> str:
    """Whose certificate it is, for people."""
    from cryptography import x509

    return shown(x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string())
