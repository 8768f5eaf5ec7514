"""The names of the section `control` on this machine: those that may not be given a role, and those that nobody has."""

from __future__ import annotations

import grp

from agent.daemon.policies.accounts import account_name, role_faults, unknown_names
from tests.daemon.control.test_callers import BIN, spec
from tests.policy.given import policy


def test_an_account_that_does_not_exist_goes_by_its_number() -> None:
    assert account_name(3_999_999_999) == "3999999999"


def test_a_policy_that_names_the_session_is_at_fault() -> None:
    group = grp.getgrgid(BIN.pw_gid).gr_name
    for text in ("control: {viewer: [bin]}", f"control: {{viewer: ['group:{group}']}}", "control: {viewer: [mail]}"):
        assert role_faults(policy(text), spec()), text
    assert role_faults(policy("control: {viewer: [daemon]}"), spec()) == []


def test_names_that_nobody_has_are_told() -> None:
    text = "control: {viewer: [daemon, nobody-here, 'group:nor-here']}"
    assert unknown_names(policy(text)) == ["nobody-here", "group:nor-here"]
