"""Secrets from values, and their ties to the rules of egress.

Rules kept here: a value goes only where the policy itself allows TLS and where not anybody can listen; a session never
gets a real value through what the policy passes on to it; a secret that nothing could use, and a credential that names
none, are problems; what a bundle offers for a secret holds only where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.policy.build import Bench
from agent.policy.build_egress import host_pattern
from agent.policy.build_terms import field_name
from agent.policy.hosts import covers_pattern
from agent.policy.model import EgressSection, HostRule, Secret, SecretSource, SourceKind
from agent.policy.paths import is_normal
from agent.policy.request import Protocol
from agent.policy.shape import Record, Text, Value
from agent.policy.shared_hosting import shared_suffix
from agent.values import replace

SESSIONS_OWN: Final = frozenset(
    {
        "ALL_PROXY",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LANG",
        "NODE_EXTRA_CA_CERTS",
        "NO_PROXY",
        "PATH",
        "PIP_CERT",
        "PWD",
        "REQUESTS_CA_BUNDLE",
        "SHELL",
        "SSL_CERT_FILE",
        "TERM",
        "TMPDIR",
        "TZ",
        "USER",
    }
)
"""Variables that the agent sets for every session; in capitals, compared so."""


def secrets(bench: Bench, values: Sequence[Value], passed_on: Sequence[str]) -> tuple[Secret, ...]:
    """The section `secrets`. `passed_on`: the variables of `session.env`."""
    found = [secret for value in values if isinstance(value, Record) and (secret := _secret(bench, value)) is not None]
    seen: dict[tuple[str, str], Secret] = {}
    for secret in found:
        for kind, name in (("name", secret.name), ("variable", secret.env), ("file", secret.file)):
            if name is None:
                continue
            first = seen.setdefault((kind, name), secret)
            if first is not secret:
                bench.fault(
                    secret.where, f"two secrets with the {kind} '{name}' (first in {first.where})", "rename one"
                )
        taken = {secret.env, *(secret.source.value if secret.source.kind is SourceKind.ENV else ())}
        for name in sorted(taken & set(passed_on) - {None}, key=str):
            bench.fault(
                secret.where,
                f"session.env passes the variable '{name}' on to the session, with its real value",
                f"remove '{name}' from session.env",
            )
    return tuple(found)


def tie(bench: Bench, given: Sequence[Secret], section: EgressSection | None) -> None:
    """Add a problem for each secret with a host that the first layer does not allow."""
    allow = section.allow if section is not None else ()
    for secret in given:
        for host in secret.hosts:
            if not any(rule.protocol is Protocol.TLS and covers_pattern(rule.pattern, host) for rule in allow):
                bench.fault(
                    secret.where,
                    f"the secret '{secret.name}' is for '{host}', which no rule allows over TLS",
                    f"add '{host}' under egress.allow, or remove it here",
                )


def settle(bench: Bench, section: EgressSection, given: Sequence[Secret]) -> EgressSection:
    """The section with its credentials tied to secrets: optional ones without a secret are dropped."""
    allow = tuple(_settled(bench, rule, given) for rule in section.allow)
    return section if allow == section.allow else replace(section, allow=allow)


def _settled(bench: Bench, rule: HostRule, given: Sequence[Secret]) -> HostRule:
    if rule.credential is None:
        return rule
    secret = next((secret for secret in given if secret.name == rule.credential.secret), None)
    if secret is not None and any(covers_pattern(host, rule.pattern) for host in secret.hosts):
        return replace(rule, credential=replace(rule.credential, optional=False))
    if rule.credential.optional:
        return replace(rule, credential=None)
    name = rule.credential.secret
    if secret is None:
        names = (
            ", ".join(sorted(secret.name for secret in given)) or "none are there; they are given in the first layer"
        )
        bench.fault(rule.where, f"there is no secret '{name}'", f"the secrets are: {names}")
    else:
        fix = f"add '{rule.pattern}' to its hosts ({secret.where})"
        bench.fault(rule.where, f"the secret '{name}' is not for '{rule.pattern}'", fix)
    return rule


def _secret(bench: Bench, record: Record) -> Secret | None:
    before = len(bench.problems)
    source = _source(bench, record)
    hosts = [_host(bench, text) for text in record.texts("hosts")]
    headers = [field_name(bench, text) for text in record.texts("header")]
    place = record.record("as") or Record((), record.where)
    if not place.has("env") and not place.has("file") and record.has("as"):
        bench.fault(place.where, "a placeholder that the session cannot find", "write `as: {env: NAME}` or {file: ~/x}")
    env, file = place.text("env") or None, place.text("file") or None
    if env is not None and (env.upper() in SESSIONS_OWN or env.startswith(("LC_", "LD_", "PARHELIA_"))):
        bench.fault(place.where, f"the variable '{env}' is set by the agent", "choose another name")
    if file is not None and not is_normal(file.replace("~", "", 1) if file.startswith("~/") else file):
        bench.fault(place.where, f"'{file}' is no normal path", "write an absolute path, or ~/path")
    if len(bench.problems) > before or source is None or record.faulty:
        return None
    return Secret(
        name=record.text("name"),
        source=source,
        hosts=tuple(sorted({host for host in hosts if host is not None})),
        headers=tuple(sorted({name for name in headers if name is not None})),
        where=record.where,
        env=env,
        file=file,
    )


def _source(bench: Bench, record: Record) -> SecretSource | None:
    given = record.record("from")
    if given is None:
        return None
    kinds = [kind for kind in SourceKind if given.has(str(kind))]
    if len(kinds) != 1:
        bench.fault(given.where, "a secret comes from exactly one place", "write one of env, file, command")
        return None
    kind = kinds[0]
    value = given.words("command") if kind is SourceKind.COMMAND else (given.text(str(kind)),)
    if kind is not SourceKind.ENV and value and value[0] and not is_normal(value[0]):
        bench.fault(given.place(str(kind)), f"'{value[0]}' is no normal absolute path", "write an absolute path")
    return SecretSource(kind, value)


def _host(bench: Bench, text: Text) -> str | None:
    pattern = host_pattern(bench, text)
    shared = None if pattern is None else shared_suffix(pattern)
    if pattern is not None and pattern.startswith("*.") and shared is not None:
        bench.fault(text.where, f"'{pattern}' is shared hosting ({shared.what})", "name the exact hosts")
        return None
    return pattern
