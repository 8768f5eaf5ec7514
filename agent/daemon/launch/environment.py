"""The session's environment: what is kept, what is set, and nothing else (the contract's rulings)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.daemon.base.places import Places
from agent.daemon.base.spec import RunSpec
from agent.policy.model import Policy

PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
NO_PROXY = "localhost,127.0.0.1,::1"
SHIM = "/usr/local/lib/parhelia/shim"
"""The image's shells that ask the agent first (`native/parhelia_hook.c`): before all others in the session's PATH."""


def _passed_on(policy: Policy) -> set[str]:
    """The names under `session.env`: the first layer's, less what a further layer's list leaves out."""
    first, *further = policy.layers
    names = set(first.session_env)
    for layer in further:
        if layer.session_env:
            names &= set(layer.session_env)
    return names


def _shells(env: Mapping[str, str]) -> dict[str, str]:
    """PATH and SHELL with the shells that ask, where the image has them."""
    if not Path(SHIM).is_dir():
        return {}
    shell = f"{SHIM}/{Path(env.get('SHELL', '')).name}"
    return {
        "PATH": f"{SHIM}:{env.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
        **({"SHELL": shell} if Path(shell).is_file() else {}),
    }


def session_environment(
    spec: RunSpec,
    policy: Policy,
    places: Places,
    *,
    workdir: str,
    ca_bundle: str,
    port: int,
    placeholders: Mapping[str, str],
    shells: bool = False,
) -> dict[str, str]:
    """Name -> value for the session's first process. `placeholders` of secrets win over what is passed on. `shells`:
    the hook's compiled-in path leads to this session's agent, so shells can ask it."""
    env = dict(spec.session_env)
    env |= {name: spec.caller_env[name] for name in _passed_on(policy) if name in spec.caller_env}
    address = f"http://127.0.0.1:{port}"
    for name in PROXY:
        env[name] = env[name.lower()] = address
    env["NO_PROXY"] = env["no_proxy"] = NO_PROXY
    env |= dict.fromkeys(TRUST, ca_bundle)
    env |= placeholders
    if shells:
        env |= _shells(env)
    env |= {"HOME": places.home, "TMPDIR": places.tmpdir, "PWD": workdir}
    return env
