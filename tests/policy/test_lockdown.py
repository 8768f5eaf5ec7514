"""A locked policy refuses, whatever its rules, modes and layers say, and is else the same policy."""

from __future__ import annotations

import pickle
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.decide import decide
from agent.policy.decision import Verdict
from agent.policy.load import LayerSource, load_policy
from agent.policy.lockdown import Lock, locked
from agent.policy.memory import Memory
from agent.policy.model import Policy
from agent.policy.request import Access, EgressRequest, Origin, PathRequest, Request, Stage, ToolRequest
from tests.policy.given import command, url

TEXT = """\
egress: {mode: MODE, allow: [good.test]}
commands: {mode: MODE}
paths: {mode: MODE, write: [/tmp]}
tools: {mode: MODE}
"""
TODAY = date(2026, 11, 22)
ASKED = Origin("test")


def policy(mode: str = "enforce") -> Policy:
    return load_policy([LayerSource("p", (("p/a.yaml", TEXT.replace("MODE", mode)),))], {})


EGRESS: tuple[Request, ...] = (
    url("https://good.test/"),
    *(EgressRequest("good.test", 443, TODAY, ASKED, stage=stage, addresses=("93.184.215.14",)) for stage in Stage),
)
OTHERS: tuple[Request, ...] = (
    command("true"),
    PathRequest(Access.READ, "/tmp/x", TODAY, ASKED),
    ToolRequest("Bash", True, TODAY, ASKED),
)


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize(
    "request_", [*EGRESS, *OTHERS], ids=lambda it: type(it).__name__ + str(getattr(it, "stage", ""))
)
def test_a_lock_of_all_refuses_what_the_policy_allows(mode: str, request_: Request) -> None:
    open_ = policy(mode)
    assert decide(open_, request_).permitted
    decision = decide(locked(open_, Lock.ALL), request_)
    assert (decision.verdict, decision.rule, decision.enforced) == (Verdict.DENY, "lockdown", True)
    assert decision.policy_digest == open_.digest
    assert not decision.permitted


@pytest.mark.parametrize("request_", EGRESS, ids=lambda it: type(it).__name__ + str(getattr(it, "stage", "")))
def test_a_lock_of_egress_refuses_every_stage_of_egress(request_: Request) -> None:
    assert decide(locked(policy(), Lock.EGRESS), request_).rule == "lockdown"


@pytest.mark.parametrize("request_", OTHERS, ids=lambda it: type(it).__name__ + str(getattr(it, "stage", "")))
def test_a_lock_of_egress_leaves_the_rest_as_it_was(request_: Request) -> None:
    assert decide(locked(policy(), Lock.EGRESS), request_) == decide(policy(), request_)


def test_a_lock_that_is_lifted_leaves_the_policy_as_it_was() -> None:
    assert locked(locked(policy(), Lock.ALL), Lock.NONE) == policy()


def test_answers_that_were_remembered_are_not_given_by_a_locked_policy() -> None:
    memory, open_ = Memory(), policy()
    assert memory.ask(open_, EGRESS[0], decide).permitted
    assert memory.ask(locked(open_, Lock.EGRESS), EGRESS[0], decide).rule == "lockdown"
    assert memory.ask(locked(open_, Lock.NONE), EGRESS[0], decide).permitted


def test_a_lock_travels_with_the_policy_to_the_egress_process() -> None:
    assert pickle.loads(pickle.dumps(locked(policy(), Lock.EGRESS))).lock is Lock.EGRESS


@given(st.sampled_from([*EGRESS, *OTHERS]), st.sampled_from(list(Lock)))
def test_a_lock_only_ever_takes_away(request_: Request, lock: Lock) -> None:
    if decide(locked(policy(), lock), request_).permitted:
        assert decide(policy(), request_).permitted
