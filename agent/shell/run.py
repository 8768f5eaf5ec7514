"""One command of known words: what it is, what it changes, what it hands on.

Rules: every program that would be executed becomes a `SimpleCommand`, the wrapper as well as what it wraps; builtins
that change what later words mean (cd, set, read, alias, …) change the state; whatever cannot be followed is recorded
with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from agent.policy.operands import normalise_operand
from agent.policy.request import UNKNOWN, SimpleCommand
from agent.shell.code import RunsArgv, RunsCode, RunsText, RunsUnknown, calls_in
from agent.shell.environment import payloads
from agent.shell.finding import find_targets
from agent.shell.fold import Word
from agent.shell.state import ANYTHING, MAX_DEPTH, NOTHING, Findings, Function, Outcome, State, plain
from agent.shell.steps import Code, Inner, Opaque, Script, ShellText, Step, Touches, basename, reads_descriptor
from agent.shell.unwrap import unwrap

_EXPANDS_AGAIN = frozenset(("declare", "typeset", "local", "let", "test", "[", "unset", "read"))
_DELETES = frozenset(("rm", "unlink"))
_FINDERS = frozenset(("find", "gfind"))


@dataclass(frozen=True, slots=True)
class Setting:
    """What surrounds a command: assignments and redirections, what is piped in, what was unwrapped on the way here.

    `final`: the words come from an exec (no functions, aliases or builtins)."""

    assignments: tuple[tuple[str, str], ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    stdin: Word | None = None
    piped_from: tuple[str, ...] = ()
    code_from: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    depth: int = 0
    final: bool = False


class Texts(Protocol):
    """Reads shell text (the walker); called for `sh -c`, `eval` and functions."""

    def read_text(self, text: str, state: State, setting: Setting) -> Outcome: ...

    def call(self, function: Function, arguments: Sequence[Word], state: State, setting: Setting) -> Outcome: ...


class Runner:
    """Follows commands into what they run."""

    def __init__(self, findings: Findings, texts: Texts) -> None:
        self._findings = findings
        self._texts = texts

    def run(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        """Follow one command."""
        if not words:
            return plain(state, NOTHING)
        if not self._findings.step():
            return plain(state)
        if setting.depth > MAX_DEPTH:
            self._findings.unknown("commands are nested too deeply")
            return plain(state)
        first = words[0]
        if not first.known or (first.glob and not setting.final):
            return self._unnamed(words, state, setting)
        program = basename(first.text)
        if not setting.final:
            defined = self._defined(first.text, words, state, setting)
            if defined is not None:
                return defined
        self._record(program, words, state, setting)
        if program in _EXPANDS_AGAIN and any("$(" in word.text or "`" in word.text for word in words[1:]):
            self._findings.unknown(f"{program} may expand a substitution in its words once more")
        if not setting.final or setting.wrappers:
            builtin = _BUILTINS.get(program)
            if builtin is not None:
                return builtin(self, words, state, setting)
        for step in unwrap(program, words, setting.stdin, setting.piped_from):
            self._follow(step, program, state, setting)
        if setting.assignments:
            for step in payloads(program, words, setting.assignments):
                self._follow(step, program, state, replace(setting, assignments=()))
        return plain(state, _output(program, words, setting))

    def _unnamed(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        self._findings.unknown("the name of a command is not known before it runs")
        if words[0].text == UNKNOWN and len(words) > 1:
            inner = replace(setting, depth=setting.depth + 1, wrappers=(*setting.wrappers, "?"))
            self.run(words[1:], state, inner)
        return plain(state)

    def _defined(self, name: str, words: Sequence[Word], state: State, setting: Setting) -> Outcome | None:
        function = state.functions.get(name)
        if function is not None:
            return self._texts.call(function, words[1:], state, setting)
        alias = state.aliases.get(name)
        if alias is not None:
            text = " ".join((alias, *(word.text for word in words[1:])))
            return self._texts.read_text(text, replace(state, aliases={}), replace(setting, depth=setting.depth + 1))
        return None

    def _record(self, program: str, words: Sequence[Word], state: State, setting: Setting) -> None:
        argv = [word.text for word in words]
        if program == "dd":
            argv += _dd_operands(setting)
        if program in _DELETES and not _FINDERS.isdisjoint(setting.wrappers):
            words = [words[0], Word("-r"), *words[1:]]  # once for everything that is found is the whole tree
            argv = [word.text for word in words]
        globs = tuple(index for index, word in enumerate(words) if word.glob)
        for cwd in state.cwd:
            self._findings.add(
                SimpleCommand(
                    program=program,
                    argv=tuple(argv),
                    cwd=cwd,
                    assignments=setting.assignments,
                    redirects=setting.redirects,
                    wrappers=setting.wrappers,
                    piped_from=setting.piped_from,
                    code_from=setting.code_from,
                    globs=globs,
                )
            )

    def _follow(self, step: Step, program: str, state: State, setting: Setting) -> None:
        inner = replace(setting, wrappers=(*setting.wrappers, program), depth=setting.depth + 1)
        match step:
            case Inner(words, directory, assignments):
                if directory is not None:
                    state = self._moved(state, directory)
                self.run(words, state, replace(inner, assignments=(*setting.assignments, *assignments)))
            case ShellText(text, positional):
                self.text(text, _of_shell(state, positional), inner)
            case Code(language, text):
                self.code(text, language, state, inner)
            case Opaque(reason):
                self._findings.unknown(reason)
            case Script():
                pass  # each exec in it is decided by itself, and where the ring runs, it reads the file
            case Touches(operator, target):
                self._touched(operator, target.text, state, inner)

    def _touched(self, operator: str, target: str, state: State, setting: Setting) -> None:
        for cwd in state.cwd:
            self._findings.add(SimpleCommand("", (), cwd, redirects=((operator, target),), wrappers=setting.wrappers))

    def text(self, text: Word, state: State, setting: Setting) -> Outcome:
        """Text that a shell reads."""
        if not text.known:
            self._findings.unknown("a shell runs text that is not known before it runs")
            text = Word(text.text.replace(UNKNOWN, "${_parhelia_unknown}"))
        return self._texts.read_text(text.text, state, replace(setting, final=False))

    def code(self, text: Word, language: str, state: State, setting: Setting) -> None:
        """Code that an interpreter reads."""
        if not text.known:
            self._findings.unknown("an interpreter runs code that is not known before it runs")
        if setting.depth > MAX_DEPTH:
            self._findings.unknown("commands are nested too deeply")
            return
        for call in calls_in(text.text, language):
            if not self._findings.step():
                return
            match call:
                case RunsText(shell):
                    self.text(Word(shell), replace(state, functions={}, aliases={}), setting)
                case RunsArgv(argv):
                    self.run([Word(word) for word in argv], state, replace(setting, final=True))
                case RunsCode(code):
                    self.code(Word(code), language, state, replace(setting, depth=setting.depth + 1))
                case RunsUnknown(what):
                    self._findings.unknown(what)

    def _moved(self, state: State, directory: Word) -> State:
        home = self._findings.home
        if not directory.known or directory.glob:
            return state.moved(None)
        targets = [normalise_operand(directory.text, cwd, home) for cwd in state.cwd]
        return state.moved(*(None if target == UNKNOWN else target for target in targets))

    def change_directory(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        operands = [w for w in words[1:] if not re.fullmatch(r"-[LPe@n]+|--", w.text)]
        target = operands[0] if operands else Word(self._findings.home)
        if words[0].text == "popd" or target.text == "-" or re.fullmatch(r"[+-]\d+", target.text):
            return Outcome(state.moved(None), state, NOTHING)
        return Outcome(self._moved(state, target), state, NOTHING)

    def evaluate(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        text = Word(" ".join(word.text for word in words[1:] if word.text != "--" or word is not words[1]))
        inner = replace(setting, wrappers=(*setting.wrappers, "eval"), depth=setting.depth + 1)
        return self.text(text, state, inner)

    def source(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        """A sourced file is not read (like any script); what it may change is not known afterwards."""
        name = words[1].text if len(words) > 1 else ""
        if reads_descriptor(name):
            if setting.stdin is None:
                self._findings.unknown("a shell reads commands from a descriptor")
            else:
                inner = replace(setting, wrappers=(*setting.wrappers, "source"), depth=setting.depth + 1)
                return self.text(setting.stdin, state, inner)
        return plain(state)

    def trap(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        operands = [word for word in words[1:] if not word.text.startswith("-") or len(word.text) > 2]
        if len(operands) > 1 and operands[0].text:
            self.text(
                operands[0], state, replace(setting, wrappers=(*setting.wrappers, "trap"), depth=setting.depth + 1)
            )
        return plain(state, NOTHING)

    def set_alias(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        aliases = dict(state.aliases)
        for word in words[1:]:
            name, equals, text = word.text.partition("=")
            if equals:
                aliases[name] = text.replace(UNKNOWN, "${_parhelia_unknown}")
        return plain(replace(state, aliases=aliases), NOTHING)

    def set_options(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        for index, word in enumerate(words[1:], 1):
            if word.text == "--" or not word.text.startswith(("-", "+")):
                rest = words[index + (word.text == "--") :]
                known = all(w.text != UNKNOWN for w in rest)
                return plain(replace(state, positional=tuple(rest) if known else None), NOTHING)
        return plain(state, NOTHING)

    def shift(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        count = words[1].text if len(words) > 1 else "1"
        if state.positional is None or not count.isdecimal():
            return plain(replace(state, positional=None), NOTHING)
        return plain(replace(state, positional=state.positional[int(count[:4]) :]), NOTHING)

    def declare(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        for word in words[1:]:
            name, equals, value = word.text.partition("=")
            if equals and re.fullmatch(r"\w+", name):
                state = state.assign(name, None if UNKNOWN in value else (Word(value, word.glob),))
        return plain(state, NOTHING)

    def forget(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        names = [word.text for word in words[1:] if re.fullmatch(r"[A-Za-z_]\w*", word.text)]
        return plain(state.forget(*names, "REPLY", "MAPFILE"), NOTHING)

    def unset(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        names = {word.text for word in words[1:]}
        functions = {name: f for name, f in state.functions.items() if name not in names}
        for name in names:
            state = state.assign(name, (NOTHING,)) if re.fullmatch(r"[A-Za-z_]\w*", name) else state
        return plain(replace(state, functions=functions), NOTHING)

    def quiet(self, _words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        return plain(state, NOTHING)

    def print_formatted(self, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
        if len(words) > 2 and words[1].text == "-v":
            return plain(state.forget(words[2].text), NOTHING)
        return plain(state, _printf(words[1:]))


def _of_shell(state: State, positional: Sequence[Word]) -> State:
    """What a shell started here begins with (exported variables are taken for all variables)."""
    name = positional[0] if positional else Word("sh")
    return replace(state, positional=tuple(positional[1:]), name=name, functions={}, aliases={})


type _Builtin = Callable[[Runner, Sequence[Word], State, Setting], Outcome]

_BUILTINS: Mapping[str, _Builtin] = MappingProxyType(
    {
        "cd": Runner.change_directory,
        "chdir": Runner.change_directory,
        "pushd": Runner.change_directory,
        "popd": Runner.change_directory,
        "eval": Runner.evaluate,
        "source": Runner.source,
        ".": Runner.source,
        "trap": Runner.trap,
        "alias": Runner.set_alias,
        "set": Runner.set_options,
        "shift": Runner.shift,
        "export": Runner.declare,
        "declare": Runner.declare,
        "typeset": Runner.declare,
        "local": Runner.declare,
        "readonly": Runner.declare,
        "read": Runner.forget,
        "mapfile": Runner.forget,
        "readarray": Runner.forget,
        "getopts": Runner.forget,
        "let": Runner.forget,
        "unset": Runner.unset,
        "printf": Runner.print_formatted,
        ":": Runner.quiet,
        "true": Runner.quiet,
        "false": Runner.quiet,
        "shopt": Runner.quiet,
        "umask": Runner.quiet,
        "ulimit": Runner.quiet,
        "test": Runner.quiet,
        "[": Runner.quiet,
    }
)


def _output(program: str, words: Sequence[Word], setting: Setting) -> Word:
    """What a command writes, where that is plain from its words."""
    given = words[1:]
    match program:
        case "echo":
            return _echo(given)
        case "cat" | "tee" if setting.stdin is not None and (
            program == "tee" or all(word.text.startswith("-") for word in given)
        ):
            return setting.stdin
        case "find":
            targets = find_targets(words)
            return Word("\n".join(target.text for target in targets) + "\n", any(target.glob for target in targets))
        case "pwd" | "basename" | "dirname":
            return ANYTHING
        case "which" if len(given) == 1:
            return Word(f"/usr/bin/{basename(given[0].text)}\n")
        case "command" if len(given) == 2 and given[0].text == "-v":
            return Word(f"/usr/bin/{basename(given[1].text)}\n")
        case "sudo" | "env" | "command" | "builtin" if given and given[0].text in ("echo", "cat", "printf"):
            return _printf(given[1:]) if given[0].text == "printf" else _output(given[0].text, given, setting)
    return ANYTHING


def _echo(given: Sequence[Word]) -> Word:
    newline, escapes, index = "\n", False, 0
    while index < len(given) and re.fullmatch(r"-[neE]+", given[index].text):
        newline = "" if "n" in given[index].text else newline
        escapes = ("e" in given[index].text) or (escapes and "E" not in given[index].text)
        index += 1
    text = " ".join(word.text for word in given[index:])
    if escapes or "\\" in text:
        text = _backslashes(text)
    return Word(text + newline, any(word.glob for word in given))


def _printf(given: Sequence[Word]) -> Word:
    if not given:
        return NOTHING
    form = _backslashes(given[0].text)
    values = [word.text for word in given[1:]]
    if re.search(r"%(?![%sbq])", form) or UNKNOWN in form:
        return ANYTHING
    slots = len(re.findall(r"%[sbq]", form))
    parts: list[str] = []
    for _ in range(min(64, max(1, -(-len(values) // slots) if slots else 1))):
        taken, values = values[:slots], values[slots:]
        pieces = iter([*taken, *[""] * slots])
        spans = re.split(r"%([%sbq])", form)
        parts += (("%" if span == "%" else next(pieces)) if index % 2 else span for index, span in enumerate(spans))
    return Word("".join(parts), any(word.glob for word in given[1:]))


def _backslashes(text: str) -> str:
    named = {"n": "\n", "t": "\t", "a": "", "b": "", "r": "", "f": "", "v": "", "\\": "\\", "e": "", "c": ""}

    def decode(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x":
            return chr(int(code[1:], 16)) if int(code[1:], 16) else ""
        if code[0] in "01234567":
            return chr(int(code, 8) & 0xFF) if int(code, 8) & 0xFF else ""
        return named[code]

    return re.sub(r"\\(x[0-9A-Fa-f]{1,2}|0?[0-7]{1,3}|[ntabrfv\\ec])", decode, text)


def _dd_operands(setting: Setting) -> list[str]:
    """dd(1) reads standard input and writes standard output where ``if=`` and ``of=`` are not given."""
    found: list[str] = []
    for operator, target in setting.redirects:
        if operator.endswith("<") or operator == "<>":
            found.append(f"if={target}")
        elif ">" in operator and "&" not in operator and not operator.startswith("2"):
            found.append(f"of={target}")
    return found
