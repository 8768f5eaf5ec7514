"""The names of a policy's section `control` on this machine: accounts and groups, as passwd(5) and group(5) know them.

Rules kept here: the session's account and the egress process's, which reads hostile bytes, have no role whatever the
policy says, and a policy that names them is at fault; a name that nobody has gives nobody anything.
"""

from __future__ import annotations

import grp
import os
import pwd

from agent.daemon.base.spec import RunSpec
from agent.policy.control_roles import GROUP, Role, listed, role_of
from agent.policy.model import Policy
from agent.policy.words import shown


def account_name(uid: int) -> str:
    """Its name, or its number where it has none."""
    try:
        return shown(pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return str(uid)


def role_faults(policy: Policy, spec: RunSpec) -> list[str]:
    """Why the policy's section `control` cannot be obeyed: it names whom no role may be given to."""
    faults = []
    for uid, who in without_role(spec).items():
        given = [name for name in _names(uid) if name in listed(policy)]
        faults += [f"control: {shown(name)} is {who}, which has no role" for name in given]
    return faults


def unknown_names(policy: Policy) -> list[str]:
    """The names of the section `control` that this machine does not know: they give nobody anything."""
    return [name for name in listed(policy) if not _exists(name)]


def without_role(spec: RunSpec) -> dict[int, str]:
    """The accounts that never have a role, and what each is."""
    found = {spec.session_user.uid: "the session's account, or a group that it is in"}
    if spec.egress_user is not None:
        found[spec.egress_user.uid] = "the egress process's account, or a group that it is in"
    return {uid: who for uid, who in found.items() if uid != 0}


def roles(policy: Policy) -> dict[int, Role]:
    """The role of each account that the policy names, itself or by a group."""
    accounts = {entry.pw_uid for name in listed(policy) for entry in _members(name)}
    found = {uid: role_of(policy, _names(uid)) for uid in accounts}
    return {uid: role for uid, role in found.items() if role is not None}


def _names(uid: int) -> list[str]:
    """What an account goes by in the section `control`."""
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return []
    groups = []
    for gid in os.getgrouplist(entry.pw_name, entry.pw_gid):
        try:
            groups.append(GROUP + grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return [entry.pw_name, *groups]


def _members(name: str) -> list[pwd.struct_passwd]:
    """The accounts behind a name of the section `control`."""
    try:
        if not name.startswith(GROUP):
            return [pwd.getpwnam(name)]
        group = grp.getgrnam(name.removeprefix(GROUP))
    except KeyError:
        return []
    return [entry for entry in pwd.getpwall() if entry.pw_gid == group.gr_gid or entry.pw_name in group.gr_mem]


def _exists(name: str) -> bool:
    try:
        if name.startswith(GROUP):
            grp.getgrnam(name.removeprefix(GROUP))
        else:
            pwd.getpwnam(name)
    except KeyError:
        return False
    return True
