"""Who is who at the control socket: accounts of this machine, and the role that each has.

Rules kept here: who asks is what the kernel says (SO_PEERCRED, unix(7)), never what the caller says; root is admin, and
so is the agent's own account where the session has another; who never has a role (`agent.daemon.policies.accounts`) has
none; everybody else has the role that the policy in force gives to the account or one of its groups, as passwd(5) and
group(5) knew them when that policy was first asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.daemon.base.spec import RunSpec
from agent.daemon.policies.accounts import account_name, roles, without_role
from agent.policy.control_roles import Role
from agent.policy.model import Policy
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is connected. `role` None: unknown to the agent. `pid`: 0 where the kernel did not say."""

    uid: int
    pid: int
    name: str
    role: Role | None

    @property
    def actor(self) -> str:
        """The audit log's actor."""
        return f"user:{self.name}"


class Callers:
    """Roles by the policy in force (`policy`)."""

    def __init__(self, spec: RunSpec, policy: Callable[[], Policy]) -> None:
        self._spec = spec
        self._policy = policy
        self._known: Policy | None = None
        self._roles: dict[int, Role] = {}

    def caller(self, uid: int, pid: int) -> Caller:
        """Who this is."""
        return Caller(uid, pid, account_name(uid), self._role(uid))

    def _role(self, uid: int) -> Role | None:
        if uid in without_role(self._spec):
            return None
        if uid in (0, os.geteuid()):
            return Role.ADMIN
        policy = self._policy()
        if policy is not self._known:
            self._roles, self._known = roles(policy), policy
        return self._roles.get(uid)
