"""`decide`: one question to one policy, one answer. The same pure function for every enforcement point.

Rules kept here: no I/O and no clock (the day is a field of the request); deny beats allow; order never matters; a
further layer can only narrow; what nothing allows is denied; a lockdown is asked first.
"""

from __future__ import annotations

from typing import assert_never

from agent.policy.decide_commands import decide_commands
from agent.policy.decide_egress import decide_egress
from agent.policy.decide_paths import decide_paths
from agent.policy.decide_tools import decide_tools
from agent.policy.decision import Decision
from agent.policy.lockdown import refused
from agent.policy.model import Policy
from agent.policy.request import CommandRequest, EgressRequest, PathRequest, Request, ToolRequest

__all__ = ["decide"]


def decide(policy: Policy, request: Request) -> Decision:
    """The policy's decision; it always names rule, reason and digest."""
    locked = refused(policy, request)
    if locked is not None:
        return locked
    match request:
        case EgressRequest():
            return decide_egress(policy, request)
        case CommandRequest():
            return decide_commands(policy, request)
        case PathRequest():
            return decide_paths(policy, request)
        case ToolRequest():
            return decide_tools(policy, request)
        case _:
            assert_never(request)
