"""What inline code was found to do, as values."""

from __future__ import annotations

from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class RunsText:
    """The code hands this text to a shell."""

    text: str


@dataclass(frozen=True, slots=True)
class RunsArgv:
    """The code runs, or amounts to, this command."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunsCode:
    """The code evaluates this text as code of its own language."""

    code: str


@dataclass(frozen=True, slots=True)
class RunsUnknown:
    """The code runs something that it computes."""

    what: str


@dataclass(frozen=True, slots=True)
class Opens:
    """The code reads (``<``) or writes (``>``) this file."""

    operator: str
    path: str


type Call = RunsText | RunsArgv | RunsCode | RunsUnknown | Opens
