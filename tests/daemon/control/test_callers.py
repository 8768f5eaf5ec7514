"""Who has which role: accounts and groups of this machine, and those that never have one."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import replace

import pytest

from agent.daemon.base.spec import RunSpec, User
from agent.daemon.control.callers import Callers
from agent.policy.model import Policy
from tests.daemon.base.test_spec import SPEC
from tests.policy.given import policy

BIN, DAEMON = pwd.getpwnam("bin"), pwd.getpwnam("daemon")
GROUP = grp.getgrgid(DAEMON.pw_gid).gr_name


def spec(session: str = "bin", egress: str | None = "mail") -> RunSpec:
    found = pwd.getpwnam(session)
    account = User(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir, "/bin/sh")
    other = None if egress is None else replace(account, name=egress, uid=pwd.getpwnam(egress).pw_uid)
    return replace(SPEC, session_user=account, egress_user=other)


def role(text: str, uid: int, given: RunSpec | None = None) -> str | None:
    return Callers(given or spec(), lambda: policy(text)).caller(uid, 1).role


def test_root_is_admin_without_being_named() -> None:
    assert role("version: 1", 0) == "admin"


def test_the_agents_own_account_is_admin_where_the_session_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: DAEMON.pw_uid)
    assert role("version: 1", DAEMON.pw_uid) == "admin"
    assert role("version: 1", DAEMON.pw_uid, spec("daemon", None)) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("version: 1", None),
        ("control: {viewer: [daemon]}", "viewer"),
        (f"control: {{operator: ['group:{GROUP}']}}", "operator"),
        (f"control: {{viewer: [daemon], operator: ['group:{GROUP}']}}", "operator"),
        ("control: {admin: [nobody-here]}", None),
    ],
)
def test_an_account_has_the_role_that_the_policy_gives_it(text: str, found: str | None) -> None:
    assert role(text, DAEMON.pw_uid) == found


def test_the_sessions_account_and_the_egress_processes_have_no_role_whatever_the_policy_says() -> None:
    text = "control: {admin: [bin, mail]}"
    assert role(text, BIN.pw_uid) is None
    assert role(text, pwd.getpwnam("mail").pw_uid) is None


def test_an_account_that_does_not_exist_has_none() -> None:
    assert role("control: {admin: [daemon]}", 3_999_999_999) is None
    assert role("control: {admin: [daemon]}", -1) is None


def test_a_changed_policy_changes_the_roles_at_once() -> None:
    in_force: list[Policy] = [policy("control: {viewer: [daemon]}")]
    callers = Callers(spec(), lambda: in_force[-1])
    assert callers.caller(DAEMON.pw_uid, 1).role == "viewer"
    in_force.append(policy("version: 1"))
    assert callers.caller(DAEMON.pw_uid, 1).role is None
