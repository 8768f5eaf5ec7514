"""What a host rule asks of requests beyond host, port, method and path: from values, contradictions refused.

Rules kept here: a rule that no mechanism could carry out, or that asks for something and forbids to look for it, is a
problem with its fix; names of header fields are in lower case from here on.
"""

from __future__ import annotations

import re
from typing import Final

from agent.policy.build import Bench
from agent.policy.globs import ANY_DEPTH
from agent.policy.http_fields import FRAMING_FIELDS, IDENTITY_FIELDS
from agent.policy.model import Condition, Credential, GitRepositories, HostLimits, Mode, Tls
from agent.policy.request import Protocol
from agent.policy.shape import Items, Record, Text
from agent.values import dataclass

_INSIDE: Final = ("methods", "paths", "headers", "query", "credential", "git")
_CONDITIONS: Final = ("methods", "paths", "headers", "query", "git")
_REPOSITORY: Final = re.compile(r"[^\s/?#%\\;]+(?:/[^\s/?#%\\;]+)*")


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """The fields of `HostRule` of the same names."""

    headers: tuple[Condition, ...]
    query: tuple[Condition, ...]
    limits: HostLimits
    tls: Tls | None
    credential: Credential | None
    git: GitRepositories | None
    scan: bool
    mode: Mode


def rule_terms(bench: Bench, record: Record, protocol: Protocol | None, *, allow: bool) -> RuleTerms:
    """What the record says, as far as it has no problem; contradictions with its other keys are added to the bench."""
    tls, mode = record.text("tls"), record.text("mode")
    terms = RuleTerms(
        headers=_headers(bench, record),
        query=_conditions(record, "query"),
        limits=_limits(bench, record),
        tls=Tls(tls) if tls else None,
        credential=_credential(record),
        git=_git(bench, record),
        scan=record.flag("scan"),
        mode=Mode(mode) if mode else Mode.ENFORCE,
    )
    _refuse_blind(bench, record, terms, protocol)
    _refuse_git_beside(bench, record)
    if (
        allow
        and terms.mode is Mode.OBSERVE
        and not any(record.has(key) for key in (*_CONDITIONS, "credential", "scan"))
    ):
        bench.fault(
            record.place("mode"),
            "mode observe on an allow without conditions: there is nothing to observe",
            "remove it",
        )
    return terms


def field_name(bench: Bench, text: Text) -> str | None:
    """A header field's name in lower case, None (and a problem) where no rule may be about it."""
    name = text.value.lower()
    if name in IDENTITY_FIELDS:
        bench.fault(text.where, f"the field '{name}' says which host is meant", "write the host under 'host:'")
        return None
    if name in FRAMING_FIELDS:
        bench.fault(text.where, f"the field '{name}' never reaches the host as it was sent", "name another field")
        return None
    return name


def _headers(bench: Bench, record: Record) -> tuple[Condition, ...]:
    found: dict[str, Condition] = {}
    given = record.record("headers")
    for condition in _conditions(record, "headers"):
        where = given.place(condition.name) if given is not None else record.where
        name = field_name(bench, Text(condition.name, where))
        if name in found:
            bench.fault(where, f"the field '{name}' is named twice: case does not matter", "merge the two")
        if name is not None:
            found[name] = Condition(name, condition.values)
    return tuple(found[name] for name in sorted(found))


def _conditions(record: Record, key: str) -> tuple[Condition, ...]:
    given = record.record(key)
    if given is None:
        return ()
    return tuple(
        Condition(name, tuple(sorted({text.value for text in values.values if isinstance(text, Text)})))
        for name, values in sorted(given.values, key=lambda pair: pair[0])
        if isinstance(values, Items)
    )


def _limits(bench: Bench, record: Record) -> HostLimits:
    given = record.record("limits")
    if given is None:
        return HostLimits()
    limits = HostLimits(
        body=given.number("body"),
        upload=given.number("upload"),
        download=given.number("download"),
        connections_per_minute=given.number("connections_per_minute"),
        connections=given.number("connections"),
        idle=given.number("idle"),
    )
    if limits.body is not None and limits.upload is not None and limits.body > limits.upload:
        bench.fault(
            given.place("body"), "a body may be larger than all uploads together", "lower body, or raise upload"
        )
    return limits


def _credential(record: Record) -> Credential | None:
    given = record.record("credential")
    if given is None or not given.text("secret"):
        return None
    return Credential(given.text("secret"), only=given.flag("only"), optional=given.flag("optional"))


def _git(bench: Bench, record: Record) -> GitRepositories | None:
    given = record.record("git")
    if given is None:
        return None
    if not given.has("fetch") and not given.has("push"):
        bench.fault(given.where, "a git rule without repositories", "write `git: {fetch: [example/*]}`, or remove it")
    for text in (*given.texts("fetch"), *given.texts("push")):
        fault = _repository_fault(text.value)
        if fault is not None:
            bench.fault(text.where, f"the repository '{text.value}' can never match: {fault[0]}", fault[1])
    return GitRepositories(tuple(sorted(set(given.words("fetch")))), tuple(sorted(set(given.words("push")))))


def _repository_fault(glob: str) -> tuple[str, str] | None:
    if "://" in glob:
        return "it is a URL", "write its path alone, such as example/project"
    if glob.startswith("/") or glob.endswith("/"):
        return "it starts or ends with '/'", f"write {glob.strip('/') or 'example/project'}"
    if glob.endswith(".git"):
        return "repositories are matched without '.git'", f"write {glob.removesuffix('.git') or 'example/project'}"
    if not _REPOSITORY.fullmatch(glob):
        return "it holds a character or an empty segment that no repository has", "write it as in the URL"
    pieces = glob.split("/")
    if any(piece in (".", "..") for piece in pieces):
        return "paths with '.' or '..' are refused", "write the path without them"
    if any(ANY_DEPTH in piece and piece != ANY_DEPTH for piece in pieces):
        return "'**' stands for whole segments", "write '*' inside a segment, '**' for segments"
    return None


def _refuse_blind(bench: Bench, record: Record, terms: RuleTerms, protocol: Protocol | None) -> None:
    """What needs to see requests, where nobody can or may look."""
    inside = [key for key in _INSIDE if record.has(key)] + (["scan"] if terms.scan else [])
    limits = record.record("limits")
    if limits is not None and limits.has("body"):
        inside.append("limits.body")
    if protocol is Protocol.TCP and inside:
        bench.fault(
            record.where, f"{_listed(inside)} with protocol tcp: nothing is known of what is inside", "use tls or http"
        )
    if terms.tls is not None and protocol is not Protocol.TLS:
        bench.fault(record.place("tls"), f"'tls: {terms.tls}' with protocol {protocol}", "remove it: there is no TLS")
    if terms.tls is Tls.PASSTHROUGH and inside:
        bench.fault(
            record.place("tls"),
            f"passthrough forbids to look inside, {_listed(inside)} need it",
            "remove one or the other",
        )
    if protocol is Protocol.HTTP and record.has("credential"):
        bench.fault(record.place("credential"), "a credential with protocol http: anybody could read it", "use tls")
    if record.has("git") and protocol is not Protocol.TLS:
        bench.fault(record.place("git"), f"git with protocol {protocol}: the rule is for git over HTTPS", "use tls")


def _refuse_git_beside(bench: Bench, record: Record) -> None:
    beside = [key for key in ("methods", "paths", "query") if record.has(key)]
    if record.has("git") and beside:
        bench.fault(
            record.place("git"),
            f"git together with {_listed(beside)}",
            "git names its requests itself: remove the others, or give them a rule of their own",
        )


def _listed(keys: list[str]) -> str:
    return " and ".join(keys) if len(keys) < 3 else f"{', '.join(keys[:-1])} and {keys[-1]}"
