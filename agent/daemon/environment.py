"""The session's environment: what is kept, what is set, and nothing else (the contract's rulings)."""

from __future__ import annotations

from agent.daemon.places import Places
from agent.daemon.spec import RunSpec
from agent.policy.model import Policy

PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
NO_PROXY = "localhost,127.0.0.1,::1"


def session_environment(
    spec: RunSpec, policy: Policy, places: Places, *, workdir: str, ca_bundle: str, port: int
) -> dict[str, str]:
    """Name -> value for the session's first process."""
    env = dict(spec.session_env)
    for layer in policy.layers[:1]:
        env |= {name: spec.caller_env[name] for name in layer.session_env if name in spec.caller_env}
    address = f"http://127.0.0.1:{port}"
    for name in PROXY:
        env[name] = env[name.lower()] = address
    env["NO_PROXY"] = env["no_proxy"] = NO_PROXY
    env |= dict.fromkeys(TRUST, ca_bundle)
    env |= {"HOME": places.home, "TMPDIR": places.tmpdir, "PWD": workdir}
    return env
