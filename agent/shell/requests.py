"""From what was asked (shell text, or the final argv of an exec) to a `CommandRequest`.

Rules: nothing raises; what could not be read makes the request unverifiable with the reason, beside the commands that
were found all the same, so that a rule can still deny them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from agent.policy.request import CommandRequest, Origin
from agent.shell.analyse import Analysis, analyse_argv, analyse_text
from agent.values import replace


def from_text(
    text: str, *, cwd: str, home: str, today: date, origin: Origin, supervised: bool = False
) -> CommandRequest:
    """The request for a shell command line that would run in `cwd`. NUL characters are dropped, as a shell does that
    reads the text, and make it unverifiable besides."""
    analysis = analyse_text(text.replace("\0", ""), cwd=cwd, home=home)
    if "\0" in text:
        analysis = replace(analysis, unverifiable=analysis.unverifiable or "the text holds a NUL character")
    return _request(
        text,
        analysis,
        today=today,
        origin=origin,
        supervised=supervised,
        cwd=cwd,
        home=home,
    )


def from_argv(
    argv: Sequence[str],
    *,
    exe: str | None,
    cwd: str,
    home: str,
    today: date,
    origin: Origin,
    supervised: bool = False,
    environment: tuple[tuple[str, str], ...] = (),
) -> CommandRequest:
    """The request for an exec. `argv` is final; `exe` is the file that will run (path, symlinks resolved), None where
    it is not known: then `argv[0]` names the program. Text handed to shells and interpreters is analysed further.
    `environment`: the variables it is given that change what it does (`agent.shell.environment`)."""
    analysis = analyse_argv(tuple(argv), exe=exe, cwd=cwd, home=home, environment=environment)
    text = " ".join(argv)
    return _request(text, analysis, today=today, origin=origin, supervised=supervised, cwd=cwd, home=home)


def _request(
    text: str, analysis: Analysis, *, today: date, origin: Origin, supervised: bool, cwd: str, home: str
) -> CommandRequest:
    return CommandRequest(
        text=text,
        commands=analysis.commands,
        today=today,
        origin=origin,
        unverifiable=analysis.unverifiable,
        supervised=supervised,
        cwd=cwd,
        home=home,
        understood=analysis.understood,
    )
