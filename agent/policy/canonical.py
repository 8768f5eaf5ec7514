"""The canonical form of a policy and its digest.

Rules kept here: the digest is of what the policy does and says, so it does not change with files, order, positions,
examples or the ids that are only places; it changes with everything that changes a decision or its words. Layers keep
their order. The form is JSON with sorted keys and without spaces, UTF-8, hashed with SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from agent.policy.control_roles import ControlSection, Role
from agent.policy.model import (
    AuditSection,
    CommandMatch,
    CommandRule,
    CommandSection,
    EgressLimits,
    EgressSection,
    HostLimits,
    HostRule,
    Layer,
    PathRule,
    PathSection,
    Pattern,
    Policy,
    RuleException,
    Secret,
)
from agent.policy.model_detect import Detector
from agent.policy.model_session import ProcessLimits
from agent.policy.rule_ids import is_by_place
from agent.policy.tool_rules import ToolRule, ToolSection
from agent.values import fields

type Json = str | int | bool | list["Json"] | dict[str, "Json"] | None

FORM = 5
"""Raised when the form changes, so that equal digests always mean equal policies."""


def digest(layers: Iterable[Layer], patterns: Iterable[Pattern] = ()) -> str:
    """Lower-case hex SHA-256 of the canonical form. `patterns`: what uploads are searched for."""
    form: Json = {
        "form": FORM,
        "layers": [dict(_layer(layer, first=index == 0)) for index, layer in enumerate(layers)],
        "patterns": _sorted([pattern.id, pattern.regex.decode("ascii")] for pattern in patterns),
    }
    return hashlib.sha256(_text(form).encode()).hexdigest()


def changed(old: Policy, new: Policy) -> tuple[str, ...]:
    """The sections in which two policies differ, by their keys; ``layers`` where they have not as many layers."""
    if len(old.layers) != len(new.layers):
        return ("layers",)
    pairs = [
        (_layer(one, first=index == 0), _layer(other, first=index == 0))
        for index, (one, other) in enumerate(zip(old.layers, new.layers, strict=True))
    ]
    return tuple(dict.fromkeys(key for one, other in pairs for key in one if one[key] != other[key]))


def _layer(layer: Layer, *, first: bool) -> dict[str, Json]:
    egress = layer.egress or (EgressSection() if first else None)
    paths = layer.paths or (PathSection() if first else None)
    return {
        "egress": None if egress is None else _egress(egress),
        "commands": None if layer.commands is None else _commands(layer.commands),
        "paths": None if paths is None else _paths(paths),
        "tools": None if layer.tools is None else _tools(layer.tools),
        "control": None if layer.control is None else _control(layer.control),
        "exceptions": _sorted(_exception(exception, layer) for exception in layer.exceptions),
        "audit": None if layer.audit is None else _audit(layer.audit),
        "session_env": _sorted(layer.session_env),
        "process_limits": _set(layer.process_limits),
        "secrets": _sorted(_secret(secret) for secret in layer.secrets),
        "detect": _sorted(_detector(detector) for detector in layer.detect),
    }


def _egress(section: EgressSection) -> Json:
    return {
        "mode": str(section.mode),
        "limits": _set(section.limits),
        "allow": _sorted(_host(rule) for rule in section.allow) if section.allow_given else None,
        "deny": _sorted(_host(rule) for rule in section.deny),
        "trust": [*section.trust],
    }


def _host(rule: HostRule) -> Json:
    return {
        **_words(rule),
        "host": rule.pattern,
        "ports": None if rule.ports is None else _sorted(rule.ports),
        "protocol": None if rule.protocol is None else str(rule.protocol),
        "methods": None if rule.methods is None else _sorted(rule.methods),
        "paths": None if rule.paths is None else _sorted(rule.paths),
        "addresses": _sorted(str(network) for network in rule.addresses),
        "headers": _sorted([condition.name, _sorted(condition.values)] for condition in rule.headers),
        "query": _sorted([condition.name, _sorted(condition.values)] for condition in rule.query),
        "limits": _set(rule.limits),
        "tls": None if rule.tls is None else str(rule.tls),
        "credential": None if rule.credential is None else [rule.credential.secret, rule.credential.only],
        "git": None if rule.git is None else [_sorted(rule.git.fetch), _sorted(rule.git.push)],
        "scan": rule.scan,
        "mode": str(rule.mode),
        "severity": str(rule.severity),
    }


def _set(limits: HostLimits | EgressLimits | ProcessLimits) -> Json:
    """The bounds that are set, by their names."""
    return {field.name: getattr(limits, field.name) for field in fields(limits)}


def _secret(secret: Secret) -> Json:
    return {
        "name": secret.name,
        "from": [str(secret.source.kind), *secret.source.value],
        "hosts": _sorted(secret.hosts),
        "headers": _sorted(secret.headers),
        "env": secret.env,
        "file": secret.file,
    }


def _commands(section: CommandSection) -> Json:
    return {
        "mode": str(section.mode),
        "unverifiable": str(section.unverifiable),
        "deny": _sorted(_command(rule) for rule in section.deny),
    }


def _command(rule: CommandRule) -> Json:
    return {
        **_words(rule),
        "match": _match(rule.match),
        "severity": str(rule.severity),
        "tags": _sorted(rule.tags),
        "in_doubt": str(rule.in_doubt),
        "unless_from_itself": rule.unless_from_itself,
    }


def _match(match: CommandMatch) -> Json:
    """All keys are sets, but for the words of the subcommand, which have an order."""
    return {
        field.name: list(match.subcommand) if field.name == "subcommand" else _sorted(getattr(match, field.name))
        for field in fields(match)
    }


def _paths(section: PathSection) -> Json:
    return {
        "mode": str(section.mode),
        "write": _sorted(_path(rule) for rule in section.write) if section.write_given else None,
        "read": _sorted(_path(rule) for rule in section.read) if section.read_given else None,
        "protect": _sorted(_path(rule) for rule in section.protect),
        "watch": _sorted(_path(rule) for rule in section.watch),
        **({"sensitive": _sorted(_path(rule) for rule in section.sensitive)} if section.sensitive else {}),
        "audit": "+".join(sorted(section.audit)) or "none",
    }


def _path(rule: PathRule) -> Json:
    return {**_words(rule), "path": rule.path}


def _tools(section: ToolSection) -> Json:
    return {
        "mode": str(section.mode),
        "allow": None if section.allow is None else _sorted(_tool(rule) for rule in section.allow),
        "deny": _sorted(_tool(rule) for rule in section.deny),
    }


def _tool(rule: ToolRule) -> Json:
    return {**_words(rule), "severity": str(rule.severity), "tool": rule.tool}


def _detector(detector: Detector) -> Json:
    return {
        "id": detector.id,
        "when": _sorted(
            {
                "events": _sorted(sign.events),
                "rules": _sorted(sign.rules),
                "tags": _sorted(sign.tags),
                "results": _sorted(map(str, sign.results)),
                "severity": None if sign.severity is None else str(sign.severity),
                "resources": _sorted(sign.resources),
            }
            for sign in detector.when
        ),
        "count": detector.count,
        "upload": detector.upload,
        "distinct": detector.distinct,
        "within": detector.within,
        "severity": str(detector.severity),
        "reason": detector.reason,
        "respond": _sorted(map(str, detector.respond)),
    }


def _control(section: ControlSection) -> Json:
    return {role: _sorted(getattr(section, role)) for role in map(str, Role)}


def _exception(exception: RuleException, layer: Layer) -> Json:
    return {
        "rule": exception.rule if not is_by_place(exception.rule) else _sorted(_named(exception.rule, layer)),
        "match": None if exception.match is None else _match(exception.match),
        "host": exception.host,
        "owner": exception.owner,
        "reason": exception.reason,
        "expires": exception.expires.isoformat(),
    }


def _named(rule: str, layer: Layer) -> list[Json]:
    """What a place stands for: the content of the rule that is there."""
    commands = layer.commands.deny if layer.commands is not None else ()
    hosts = layer.egress.deny if layer.egress is not None else ()
    return [*(_command(r) for r in commands if r.id == rule), *(_host(r) for r in hosts if r.id == rule)]


def _audit(section: AuditSection) -> Json:
    return {"on_failure": str(section.on_failure), "durable": str(section.durable)}


def _words(rule: HostRule | CommandRule | PathRule | ToolRule) -> dict[str, Json]:
    return {"id": None if is_by_place(rule.id) else rule.id, "reason": rule.reason, "instead": rule.instead}


def _sorted(values: Iterable[Json]) -> list[Json]:
    """A set of values: each once, in the order of their texts."""
    unique = {_text(value): value for value in values}
    return [unique[key] for key in sorted(unique)]


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
