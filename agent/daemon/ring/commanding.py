"""What an exec asks the policy: its command on the day, as one that is decided where it is executed."""

from __future__ import annotations

import datetime

from agent.policy.request import CommandRequest, Origin
from agent.shell.requests import from_argv
from agent.shell.scripts import Environment
from agent.values import replace


def command_request(
    argv: tuple[str, ...], exe: str | None, cwd: str, *, home: str, origin: Origin, env: Environment = ()
) -> CommandRequest:
    """`home`: the session's; `exe`: what will really run, where that is known."""
    today = datetime.datetime.now(datetime.UTC).date()
    known = from_argv(argv, exe=exe, cwd=cwd, home=home, today=today, origin=origin, environment=env)
    return replace(known, supervised=True)
