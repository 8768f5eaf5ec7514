"""The session's environment: what is kept, what is set, and nothing else (the contract's rulings)."""

from __future__ import annotations

from collections.abc import Mapping

from agent.daemon.places import Places
from agent.daemon.spec import RunSpec
from agent.policy.model import Policy

PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
NO_PROXY = "localhost,127.0.0.1,::1"


def _passed_on(policy: Policy) -> set[str]:
    """The names under `session.env`: the first layer's, less what a further layer's list leaves out."""
    first, *further = policy.layers
    names = set(first.session_env)
    for layer in further:
        if layer.session_env:
            names &= set(layer.session_env)
    return names


def session_environment(
    spec: RunSpec,
    policy: Policy,
    places: Places,
    *,
    workdir: str,
    ca_bundle: str,
    port: int,
    placeholders: Mapping[str, str],
) -> dict[str, str]:
    """Name -> value for the session's first process. `placeholders` of secrets win over what is passed on."""
    env = dict(spec.session_env)
    env |= {name: spec.caller_env[name] for name in _passed_on(policy) if name in spec.caller_env}
    address = f"http://127.0.0.1:{port}"
    for name in PROXY:
        env[name] = env[name.lower()] = address
    env["NO_PROXY"] = env["no_proxy"] = NO_PROXY
    env |= dict.fromkeys(TRUST, ca_bundle)
    env |= placeholders
    env |= {"HOME": places.home, "TMPDIR": places.tmpdir, "PWD": workdir}
    return env
