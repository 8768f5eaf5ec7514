"""What a shell text or an argv can run."""

from __future__ import annotations

from dataclasses import dataclass

from agent.policy.request import SimpleCommand


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything the text can run. `unverifiable`: why that is not all of it, None where it is."""

    commands: tuple[SimpleCommand, ...]
    unverifiable: str | None


def analyse_text(text: str, *, cwd: str, home: str) -> Analysis:
    """Until the walker lands, no text can be verified."""
    return Analysis((), "shell text is not analysed yet")


def analyse_argv(argv: tuple[str, ...], *, exe: str | None, cwd: str, home: str) -> Analysis:
    """Until the walker lands: the program and its words, no wrapper or shell looked into."""
    if not argv and exe is None:
        return Analysis((), "empty argv")
    name = exe if exe is not None else argv[0]
    return Analysis((SimpleCommand(name.rpartition("/")[2], argv, cwd),), None)
