"""What the tests of the shell share: a question to the default policy, and where it is asked."""

from __future__ import annotations

from datetime import date
from functools import cache

from agent.daemon.policies.store import read_policy
from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.model import Policy
from agent.policy.request import CommandRequest, Origin
from agent.shell.requests import from_argv, from_text

HOME = "/home/session"
CWD = "/vol/parhelia/workspaces/project"
TODAY = date(2026, 11, 22)
ORIGIN = Origin("check")


@cache
def default_policy() -> Policy:
    return read_policy([])


def request(text: str, cwd: str = CWD) -> CommandRequest:
    return from_text(text, cwd=cwd, home=HOME, today=TODAY, origin=ORIGIN)


def request_argv(*argv: str, exe: str | None = None, cwd: str = CWD) -> CommandRequest:
    return from_argv(argv, exe=exe, cwd=cwd, home=HOME, today=TODAY, origin=ORIGIN)


def decision(asked: CommandRequest) -> Decision:
    return decide(default_policy(), asked)


def answer(text: str, cwd: str = CWD) -> tuple[str, str]:
    """(verdict, rule) of the default policy."""
    decided = decision(request(text, cwd))
    return str(decided.verdict), decided.rule
