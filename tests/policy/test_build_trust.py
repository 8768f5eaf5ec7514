"""Authorities of the policy's own: read in one spelling, in the first layer alone, and nothing but certificates."""

from __future__ import annotations

from textwrap import indent

import pytest
from cryptography.hazmat.primitives import serialization

from agent.policy.build_trust import subject
from agent.policy.problem import PolicyError
from tests.policy.authority import make_certificate
from tests.policy.given import policy, problems

KEY, AUTHORITY = make_certificate("authority.test", ca=True)
_, OTHER = make_certificate("other.test", ca=True)
_, SERVER = make_certificate("server.test", ca=False)
_, NOBODY = make_certificate("old.test", ca=None)
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def trusting(*texts: str) -> str:
    items = "".join("    - |\n" + indent(text, "      ") for text in texts)
    return f"egress:\n  allow: [good.test]\n  trust:\n{items}"


def test_certificates_are_read_whichever_way_they_are_listed() -> None:
    apart, together = policy(trusting(AUTHORITY, OTHER)), policy(trusting(OTHER + "\n" + AUTHORITY))
    assert sorted(apart.trust.split("\n\n")) == sorted(together.trust.split("\n\n"))
    assert (AUTHORITY in apart.trust, OTHER in apart.trust) == (True, True)
    assert apart.digest == together.digest
    assert apart.digest != policy(trusting(AUTHORITY)).digest
    assert policy("egress: {allow: [good.test]}").trust == ""
    assert subject(AUTHORITY) == "CN=authority.test"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AUTHORITY + PRIVATE, "a private key where a certificate is meant; remove it, and replace that key"),
        ("certificate", "this is not a certificate in PEM and nothing else"),
        (AUTHORITY + "and more\n", "this is not a certificate in PEM and nothing else"),
        (AUTHORITY[:-60], "this is not a certificate in PEM and nothing else"),
        (AUTHORITY.replace("MII", "AAA", 1), "the certificate cannot be read"),
        (SERVER, "the certificate is not an authority's (no CA:TRUE)"),
        (NOBODY, "the certificate is not an authority's (no CA:TRUE)"),
    ],
)
def test_what_is_no_authoritys_certificate_is_a_problem(text: str, expected: str) -> None:
    (found,) = problems(trusting(text))
    assert expected in found
    assert found.startswith("p/a.yaml:4:7: ")


def test_a_further_layer_cannot_add_an_authority() -> None:
    with pytest.raises(PolicyError, match="an authority to trust in a further layer; move it to the first layer"):
        policy("egress: {allow: [good.test]}", trusting(AUTHORITY))
