"""How a decided request reads in the audit log: the contract's table of events, once.

Network -> `network.egress_blocked` (or `network.egress` for an allowed connection), commands -> `bash.dangerous`, paths
and tools -> `permission.denied`. Allowed commands, paths and tools, and single requests inside an allowed connection,
leave no line.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, assert_never

from agent.policy.decision import Decision, Verdict
from agent.policy.hosts import host_and_port
from agent.policy.request import Access, CommandRequest, EgressRequest, Origin, PathRequest, Request, Stage, ToolRequest
from agent.policy.words import shown
from agent.record.event import Action, Event, EventType, Json, ResourceType, Result
from agent.shell.redact import redact, redact_argv

_ARGV_REMEMBERED: Final = 1 << 14
_PATH_ACTION = {
    Access.READ: Action.READ,
    Access.EXECUTE: Action.READ,
    Access.WRITE: Action.UPDATE,
    Access.DELETE: Action.DELETE,
}


def describe(request: Request, decision: Decision, actor: str) -> Event | None:
    """The event for this decision, None where it leaves no line."""
    denied = decision.verdict is Verdict.DENY or (decision.verdict is Verdict.UNVERIFIABLE and not decision.supervised)
    if not _leaves_line(request, decision, denied):
        return None
    details = _details(request.origin, decision)
    match request:
        case EgressRequest():
            details |= _some(
                host=request.host,
                port=request.port,
                protocol=str(request.protocol),
                stage=str(request.stage),
                sni=request.sni,
                method=request.method,
                path=None if request.path is None else redact(request.path),
                addresses=list(request.addresses) or None,
            )
            event_type, action = EventType.NETWORK_EGRESS_BLOCKED, Action.CREATE
            resource = host_and_port(request.host, request.port) if request.port else request.host
            kind = ResourceType.NETWORK
            if not denied:
                event_type = EventType.NETWORK_EGRESS
        case CommandRequest():
            details |= _some(cwd=request.cwd, unverifiable=request.unverifiable)
            event_type, action = EventType.BASH_DANGEROUS, Action.UPDATE
            resource, kind = redact(request.text), ResourceType.COMMAND
        case PathRequest():
            details |= _some(access=str(request.access), asked=request.asked or None)
            event_type, action = EventType.PERMISSION_DENIED, _PATH_ACTION[request.access]
            resource, kind = request.path, ResourceType.PATH
        case ToolRequest():
            event_type, action = EventType.PERMISSION_DENIED, Action.UPDATE
            resource, kind = shown(request.tool), ResourceType.TOOL
        case _:
            assert_never(request)
    return Event(
        type=event_type,
        actor=actor,
        action=action,
        resource=resource,
        resource_type=kind,
        result=Result.DENIED if denied and decision.enforced else Result.SUCCESS,
        source_ip=request.origin.source_ip,
        details=details,
    )


def _leaves_line(request: Request, decision: Decision, denied: bool) -> bool:
    """Decided first, since most requests are allowed and leave none."""
    if not isinstance(request, EgressRequest):
        return denied
    if not denied:
        return request.stage is Stage.CONNECT
    # observed only, at the name: the connection goes on, and its next stage says the same
    return decision.enforced or request.stage is not Stage.NAME


def _details(origin: Origin, decision: Decision) -> dict[str, Json]:
    details = _some(
        mechanism=origin.mechanism,
        pid=origin.pid,
        ppid=origin.ppid,
        uid=origin.uid,
        exe=origin.exe,
        argv=None if origin.argv is None else [*_redacted(origin.argv)],
        source_port=origin.source_port,
        request_id=origin.request_id,
        rule=decision.rule,
        reason=decision.reason,
        severity=str(decision.severity),
        policy_digest=decision.policy_digest,
        where=decision.where,
        verdict=str(decision.verdict),
    )
    if not decision.enforced:
        details["enforced"] = False
    for key, value in origin.extra:
        details.setdefault(key, value)
    return details


def _redacted(argv: tuple[str, ...]) -> Sequence[str]:
    """A program in a loop is refused again and again: its argv is redacted once, unless it is a long one."""
    return _remembered(argv) if sum(map(len, argv)) <= _ARGV_REMEMBERED else redact_argv(argv)


@lru_cache(maxsize=64)
def _remembered(argv: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(redact_argv(argv))


def _some(**fields: Json) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value is not None}
