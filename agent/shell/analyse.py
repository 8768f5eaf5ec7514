"""What a shell text or an argv can run: the walk over the syntax tree.

Rules: every way through the text is followed (both branches, a loop's body, a function where it is called, or once
where it is not); what is not known is recorded as a reason, beside the commands that were found all the same;
nothing raises and everything is bounded (`agent.shell.findings`, `agent.shell.state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from agent.policy.request import SimpleCommand, Understood
from agent.shell.again import look_at_text
from agent.shell.environment import has_payload
from agent.shell.findings import FORK_BOMB, Findings, shown_line
from agent.shell.pieces import Word
from agent.shell.run import Runner, may_run_more
from agent.shell.setting import Setting
from agent.shell.state import MAX_DEPTH, Function, Outcome, State, plain
from agent.shell.steps import basename
from agent.shell.syntax import Unreadable, read_shell, unseen_substitutions
from agent.shell.walk import NOT_UNDERSTOOD, Walk
from agent.shell.wrappers import MULTICALL
from agent.values import dataclass

_MAX_RECURSION = 3


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything the text can run. `unverifiable`: why that is not all of it, None where it is. `understood`: how it
    was found."""

    commands: tuple[SimpleCommand, ...]
    unverifiable: str | None
    understood: tuple[Understood, ...] = ()


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
    unreadable = not argv or "\0" in "".join(argv)
    if unreadable:
        argv = tuple(word.replace("\0", "") for word in argv)
    names, known = _names_of(exe or "", argv[0] if argv else "")
    if not (unreadable or known or (environment and any(has_payload(name, environment) for name in names))):
        return _analysis_of_plain([SimpleCommand(name, (name, *argv[1:]), cwd, environment) for name in names])
    findings = Findings(home)
    if unreadable:
        findings.unknown("the argument list is empty or holds a NUL character")
    walker = Walker(findings)
    words = [Word(word) for word in argv[1:]]
    try:
        for name in names:
            walker.runner.run([Word(name), *words], State(cwd=(cwd,)), Setting(environment, final=True))
    except RecursionError:
        findings.unknown("the command is nested too deeply")
    return _analysis(findings)


@lru_cache(maxsize=4096)
def _names_of(exe: str, called: str) -> tuple[tuple[str, ...], bool]:
    """The programs that an exec of file `exe` as `called` may mean, and whether one may run more than itself."""
    shown, real = basename(called).lstrip("-"), basename(exe)
    names = tuple(
        name for name in dict.fromkeys((real, shown)) if name and not (name == real in MULTICALL and shown != real)
    )
    return names, any("\0" in name or may_run_more(name) for name in names)


def _analysis_of_plain(commands: Sequence[SimpleCommand]) -> Analysis:
    """Of programs that run nothing else: what the walk would find, without the walk (`tests/shell` compare the two)."""
    lines = tuple(
        Understood(0, "command", shown_line(" ".join(command.argv)), index) for index, command in enumerate(commands)
    )
    return Analysis(tuple(commands), None, lines)


def _analysis(findings: Findings) -> Analysis:
    return Analysis(tuple(findings.commands), "; ".join(findings.reasons) or None, findings.understood())


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
        if not source.whole:
            self.findings.unknown(NOT_UNDERSTOOD)
        look_at_text(text, self.findings)
        unseen, all_seen = unseen_substitutions(source)
        if not all_seen:
            self.findings.unknown("the text has too many substitutions to look at")
        for inner in unseen:
            self.findings.unknown("a substitution stands where it is not understood here")
            self.read_text(inner, state, setting.deeper())
        walk = Walk(self, source, setting)
        outcome = walk.statement(source.root, state, setting.stdin)
        if outcome.state.functions is not state.functions:
            self._uncalled(outcome.state, state, setting)
        return outcome

    def _uncalled(self, state: State, before: State, setting: Setting) -> None:
        """A function that nothing called is walked once, with arguments that are not known."""
        known = {function for found in before.functions.values() for function in found}
        for found in state.functions.values():
            for function in found:
                if function is not None and function not in known and function not in self.findings.calls:
                    self.findings.note(setting.depth, "function", f"{function.name}, which is not called here")
                    self.call(function, None, state, setting)

    def call(self, function: Function, arguments: Sequence[Word] | None, state: State, setting: Setting) -> Outcome:
        """Walk a function's body with its arguments, None where they are not known. After some recursion nothing of
        what changes is known any more, and one last call covers all further ones."""
        level = setting.active.count(function)
        if level and self.findings.starts_itself(function, setting.place, beside=setting.beside):
            self.runner.named(FORK_BOMB, state, setting)
        if level > _MAX_RECURSION or setting.depth > MAX_DEPTH:
            return plain(state)
        self.findings.calls.add(function)
        inside = state._replace(positional=tuple(arguments) if arguments is not None else None)
        if level == _MAX_RECURSION:
            inside = inside.forget(*inside.variables)._replace(positional=None)
            inside = inside.moved(None)
        inner = setting.deeper()._replace(active=(*setting.active, function), redirects=(), beside=False)
        outcome = Walk(self, function.source, inner).statement(function.body, inside, setting.stdin)
        success, failure = (end._replace(positional=state.positional) for end in outcome[:2])
        return Outcome(success, failure, outcome.output)
