"""Who may ask the agent for what, over its control socket: the section `control` as values.

Rules kept here: the roles are ordered, and a higher one may do all that a lower one may; a further layer only narrows
(a caller has in all the lowest role that any layer with the section gives, none where one gives none); without the
section in the first layer nobody is named. Root and the agent's own account need no naming and the session's own gets
no role whatever is written here: both are settled where accounts are known (`agent.daemon.control.callers`).
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import TYPE_CHECKING

from agent.values import dataclass

if TYPE_CHECKING:  # the model knows the section from here
    from agent.policy.model import Policy

GROUP = "group:"
"""What a name starts with that stands for the members of a group."""


class Role(StrEnum):
    """VIEWER sees the state of the session, OPERATOR manages the session, ADMIN may do everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, least: Role) -> bool:
        """Is this role `least` or a higher one?"""
        return _RANK[self] >= _RANK[least]


_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class ControlSection:
    """Names of accounts, and of groups behind `GROUP`, by the role that they have."""

    admin: tuple[str, ...] = ()
    operator: tuple[str, ...] = ()
    viewer: tuple[str, ...] = ()

    def role(self, names: Collection[str]) -> Role | None:
        """The highest role that any of the names has."""
        for role, listed in ((Role.ADMIN, self.admin), (Role.OPERATOR, self.operator), (Role.VIEWER, self.viewer)):
            if any(name in listed for name in names):
                return role
        return None


def listed(policy: Policy) -> tuple[str, ...]:
    """Every name that any layer lists."""
    sections = [layer.control for layer in policy.layers if layer.control is not None]
    return tuple(dict.fromkeys(name for one in sections for name in (*one.admin, *one.operator, *one.viewer)))


def role_of(policy: Policy, names: Collection[str]) -> Role | None:
    """The role that the policy gives to who goes by all of these names (its account, its groups)."""
    if not policy.layers or policy.layers[0].control is None:
        return None
    roles = [layer.control.role(names) for layer in policy.layers if layer.control is not None]
    given = [role for role in roles if role is not None]
    return min(given, key=_RANK.__getitem__) if len(given) == len(roles) else None
