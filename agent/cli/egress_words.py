"""Rules, terms and secrets of egress in words, for `check` and `policy explain`.

Rules kept here: nothing shows a secret's value, or where the agent gets it from beyond the kind of place.
"""

from __future__ import annotations

from agent.policy.decide_egress import said
from agent.policy.model import Credential, EgressLimits, HostLimits, HostRule, Mode, Secret
from agent.policy.terms import Terms
from agent.values import fields

_UNITS = {"body": " bytes", "upload": " bytes", "download": " bytes", "idle": " s", "head": " s"}


def of_rule(rule: HostRule) -> str:
    """What the rule is about, in one line."""
    words = [rule.pattern]
    words.append("any port" if rule.ports is None else ",".join(str(port) for port in rule.ports))
    words.append("any protocol" if rule.protocol is None else str(rule.protocol))
    words += [" ".join(extra) for extra in (rule.methods, rule.paths) if extra is not None]
    words += [f"header {said(condition)}" for condition in rule.headers]
    words += [f"query {said(condition)}" for condition in rule.query]
    if rule.git is not None:
        words += [f"git fetch of {' '.join(rule.git.fetch)}"] if rule.git.fetch else []
        words += [f"git push to {' '.join(rule.git.push)}"] if rule.git.push else []
    words += [f"may be at {network}" for network in rule.addresses]
    words += [f"tls {rule.tls}"] if rule.tls is not None else []
    words += [of_credential(rule.credential)] if rule.credential is not None else []
    words += ["uploads scanned"] if rule.scan else []
    bounds = of_limits(rule.limits)
    words += [f"({bounds})"] if bounds else []
    words += ["observed only"] if rule.mode is Mode.OBSERVE else []
    return " ".join(words)


def of_terms(terms: Terms) -> list[str]:
    """What a permitted connection is bound to, a line each."""
    lines = [f"limits: {bounds}"] if (bounds := of_limits(terms.limits)) else []
    lines += [of_credential(credential) for credential in terms.credentials]
    lines += ["uploads are searched for credentials"] if terms.scan else []
    lines += ["its TLS is never intercepted"] if terms.passthrough else []
    return lines


def of_limits(limits: HostLimits | EgressLimits) -> str:
    """The bounds that are set."""
    given = [(field.name, getattr(limits, field.name)) for field in fields(limits)]
    return ", ".join(f"{name} {value}{_UNITS.get(name, '')}" for name, value in given if value is not None)


def of_credential(credential: Credential) -> str:
    """Which secret belongs there."""
    return f"credential {credential.secret}{' and no other' if credential.only else ''}"


def of_secret(secret: Secret) -> str:
    """Where it goes and where the session finds the placeholder; never the value."""
    places = [f"${secret.env}"] if secret.env is not None else []
    places += [secret.file] if secret.file is not None else []
    return (
        f"{secret.name} from {secret.source.kind}, in {', '.join(secret.headers)} to {', '.join(secret.hosts)}; "
        f"the session finds its placeholder in {' and '.join(places)}"
    )
