"""What a shell text or an argv can run: the walk over the syntax tree.

Rules: every way through the text is followed (both branches, a loop's body, a function where it is called, or once
where it is not); what is not known is recorded as a reason, beside the commands that were found all the same;
nothing raises and everything is bounded (`agent.shell.state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.policy.request import SimpleCommand
from agent.shell.fold import Word
from agent.shell.run import Runner, Setting
from agent.shell.state import MAX_DEPTH, Findings, Function, Outcome, State, plain
from agent.shell.steps import basename
from agent.shell.syntax import Unreadable, read_shell, unseen_substitutions
from agent.shell.walk import NOT_UNDERSTOOD, Walk
from agent.shell.wrappers import MULTICALL


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything the text can run. `unverifiable`: why that is not all of it, None where it is."""

    commands: tuple[SimpleCommand, ...]
    unverifiable: str | None


def analyse_text(text: str, *, cwd: str, home: str) -> Analysis:
    """What a shell would run, given `text` as its command line in directory `cwd`."""
    findings = Findings(home)
    walker = Walker(findings)
    try:
        walker.read_text(text, State(cwd=(cwd,)), Setting())
    except RecursionError:
        findings.unknown("the text is nested too deeply")
    return _analysis(findings)


def analyse_argv(
    argv: tuple[str, ...], *, exe: str | None, cwd: str, home: str, environment: tuple[tuple[str, str], ...] = ()
) -> Analysis:
    """What an exec of `argv` runs; `exe` is the file that will run, None where `argv[0]` has to do. `environment` are
    the variables it is given that change what it does (`agent.shell.environment`).

    Where the two name different programs both are taken for what runs, unless the file is one of those that become what
    `argv[0]` says (busybox).
    """
    findings = Findings(home)
    if not argv or any("\0" in word for word in argv):
        findings.unknown("the argument list is empty or holds a NUL character")
        argv = tuple(word.replace("\0", "") for word in argv)
    shown = basename(argv[0]).lstrip("-") if argv else ""
    real = basename(exe) if exe else ""
    names = [
        name for name in dict.fromkeys((real, shown)) if name and not (name == real in MULTICALL and shown != real)
    ]
    walker = Walker(findings)
    words = [Word(word) for word in argv[1:]]
    try:
        for name in names:
            walker.runner.run([Word(name), *words], State(cwd=(cwd,)), Setting(environment, final=True))
    except RecursionError:
        findings.unknown("the command is nested too deeply")
    return _analysis(findings)


def _analysis(findings: Findings) -> Analysis:
    return Analysis(tuple(findings.commands), "; ".join(findings.reasons) or None)


class Walker:
    """Walks texts; one per analysis."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.runner = Runner(findings, self)

    def read_text(self, text: str, state: State, setting: Setting) -> Outcome:
        """Walk `text` as a shell would read it."""
        if setting.depth > MAX_DEPTH:
            self.findings.unknown("commands are nested too deeply")
            return plain(state)
        try:
            source = read_shell(text)
        except Unreadable as error:
            self.findings.unknown(str(error))
            return plain(state)
        if source.root.has_error:
            self.findings.unknown(NOT_UNDERSTOOD)
        for inner in unseen_substitutions(source):
            self.findings.unknown("a substitution stands where it is not understood here")
            self.read_text(inner, state, replace(setting, depth=setting.depth + 1))
        walk = Walk(self, source, setting)
        before = set(state.functions.values())
        outcome = walk.statement(source.root, state, setting.stdin)
        for function in outcome.state.functions.values():
            if function not in before and function not in self.findings.calls:
                self.call(function, (), replace(outcome.state, positional=None), setting, known=False)
        return outcome

    def call(
        self, function: Function, arguments: Sequence[Word], state: State, setting: Setting, *, known: bool = True
    ) -> Outcome:
        """Walk a function's body with its arguments (a recursive call adds nothing new)."""
        if self.findings.calls.count(function) > 3 or setting.depth > MAX_DEPTH:
            return plain(state)
        self.findings.calls.append(function)
        inner = replace(setting, depth=setting.depth + 1)
        walk = Walk(self, function.source, inner)
        outcome = walk.statement(
            function.body, replace(state, positional=tuple(arguments) if known else None), setting.stdin
        )
        return Outcome(
            replace(outcome.success, positional=state.positional),
            replace(outcome.failure, positional=state.positional),
            outcome.output,
        )
