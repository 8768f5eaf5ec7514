"""How each decided request reads in the log: the contract's table, row by row."""

from __future__ import annotations

from datetime import date

import pytest

from agent.describe import describe
from agent.policy.decision import Decision, Verdict
from agent.policy.request import Access, CommandRequest, EgressRequest, Origin, PathRequest, Request, Stage, ToolRequest

TODAY = date(2026, 11, 22)
SECRET = "sk-ant-REDACTED" + "x1Y2" * 10
ORIGIN = Origin(
    "test", pid=4, argv=("tool", "--password", "hunter2"), source_ip="127.0.0.1", extra=(("tool_use_id", "t1"),)
)


def egress(stage: Stage) -> EgressRequest:
    return EgressRequest("a.test", 443, TODAY, ORIGIN, stage=stage, path=f"/x?key={SECRET}", method="GET")


IPV6 = EgressRequest("2001:db8::1", 9000, TODAY, ORIGIN)
COMMAND = CommandRequest(f"curl -H 'Authorization: Bearer {SECRET}'", (), TODAY, ORIGIN, cwd="/w")


TOOL = ToolRequest("mcp__a__\x1b", False, TODAY, ORIGIN)


def path(access: Access) -> PathRequest:
    return PathRequest(access, "/etc/passwd", TODAY, ORIGIN, asked="/w/link")


def answer(verdict: Verdict, *, enforced: bool = True, supervised: bool = False) -> Decision:
    return Decision(verdict, "some-rule", "some reason", "d" * 64, enforced=enforced, supervised=supervised)


DENY, ALLOW, UNKNOWN = answer(Verdict.DENY), answer(Verdict.ALLOW), answer(Verdict.UNVERIFIABLE)
OBSERVED = answer(Verdict.DENY, enforced=False)


@pytest.mark.parametrize(
    ("request_", "decision", "expected"),
    [
        (egress(Stage.NAME), DENY, ("network.egress_blocked", "CREATE", "a.test:443", "network", "denied")),
        (IPV6, DENY, ("network.egress_blocked", "CREATE", "[2001:db8::1]:9000", "network", "denied")),
        (egress(Stage.CONNECT), DENY, ("network.egress_blocked", "CREATE", "a.test:443", "network", "denied")),
        (egress(Stage.REQUEST), DENY, ("network.egress_blocked", "CREATE", "a.test:443", "network", "denied")),
        (egress(Stage.CONNECT), ALLOW, ("network.egress", "CREATE", "a.test:443", "network", "success")),
        (egress(Stage.NAME), ALLOW, None),
        (egress(Stage.REQUEST), ALLOW, None),
        (egress(Stage.CONNECT), OBSERVED, ("network.egress_blocked", "CREATE", "a.test:443", "network", "success")),
        (egress(Stage.NAME), OBSERVED, None),
        (COMMAND, DENY, ("bash.dangerous", "UPDATE", None, "command", "denied")),
        (COMMAND, UNKNOWN, ("bash.dangerous", "UPDATE", None, "command", "denied")),
        (COMMAND, answer(Verdict.UNVERIFIABLE, supervised=True), None),
        (COMMAND, OBSERVED, ("bash.dangerous", "UPDATE", None, "command", "success")),
        (COMMAND, ALLOW, None),
        (TOOL, DENY, ("permission.denied", "UPDATE", "mcp__a__\\x1b", "tool", "denied")),
        (TOOL, ALLOW, None),
        (path(Access.READ), DENY, ("permission.denied", "READ", "/etc/passwd", "path", "denied")),
        (path(Access.EXECUTE), DENY, ("permission.denied", "READ", "/etc/passwd", "path", "denied")),
        (path(Access.WRITE), DENY, ("permission.denied", "UPDATE", "/etc/passwd", "path", "denied")),
        (path(Access.DELETE), DENY, ("permission.denied", "DELETE", "/etc/passwd", "path", "denied")),
        (path(Access.READ), ALLOW, None),
    ],
)
def test_each_request_reads_as_the_contract_says(
    request_: Request, decision: Decision, expected: tuple[str | None, ...] | None
) -> None:
    event = describe(request_, decision, "session:s")
    if event is None or expected is None:
        assert event is None and expected is None
        return
    kind, action, resource, resource_type, result = expected
    assert (event.type, event.action, event.resource_type, event.result) == (kind, action, resource_type, result)
    assert resource is None or event.resource == resource
    assert (event.actor, event.source_ip) == ("session:s", "127.0.0.1")
    wanted = {"rule": "some-rule", "mechanism": "test", "pid": 4, "tool_use_id": "t1", "policy_digest": "d" * 64}
    assert wanted.items() <= event.details.items()
    assert ("enforced" in event.details) is not decision.enforced


@pytest.mark.parametrize("request_", [egress(Stage.CONNECT), COMMAND, path(Access.READ)])
def test_nothing_secret_reaches_the_event(request_: Request) -> None:
    event = describe(request_, DENY, "session:s")
    assert event is not None
    assert SECRET not in repr(event)
    assert "hunter2" not in repr(event)
