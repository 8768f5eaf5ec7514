"""One command of known words: what it is, what it changes, what it hands on.

Rules: every program that would be executed becomes a `SimpleCommand`, the wrapper as well as what it wraps; a function
or an alias that may or may not be there is followed beside the command itself; whatever cannot be followed is recorded
with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.policy.operands import normalise_operand
from agent.policy.program_names import plain_name
from agent.policy.request import UNKNOWN, SimpleCommand
from agent.shell import again, builtins
from agent.shell.code import calls_of
from agent.shell.code_calls import Opens, RunsArgv, RunsCode, RunsText, RunsUnknown
from agent.shell.dialects import DIALECTS, says
from agent.shell.environment import payloads
from agent.shell.filters import NUL
from agent.shell.findings import PLACEHOLDER, Findings, shown_words
from agent.shell.interpreters import language_of
from agent.shell.pieces import NOTHING, Word, makers, unknown_of
from agent.shell.printed import printed
from agent.shell.setting import Setting, Texts
from agent.shell.state import MAX_DEPTH, Outcome, State, join, plain
from agent.shell.steps import SHELL, Code, Inner, Opaque, Script, ShellText, Step, Touches, basename, reads_descriptor
from agent.shell.unwrap import is_known, unwrap
from agent.shell.writes import files_written

BUILTINS = {**builtins.BUILTINS, **again.BUILTINS}
_DECLARES = frozenset(("declare", "typeset", "local", "readonly", "export"))
_EXPANDS_AGAIN = _DECLARES | {"let", "test", "[", "unset", "read"}
_READS_SHELL = _EXPANDS_AGAIN | {"eval", "source", ".", "trap", "dd"}
"""Programs that are more than a command of their words here; the rest of them is in tables (`unwrap.is_known`)."""
_DELETES = frozenset(("rm", "unlink"))
_FINDERS = frozenset(("find", "gfind"))
_RESERVED = frozenset(("time", "!", "{", "if", "while", "until", "elif", "then", "do", "else", "coproc", "noglob"))
"""Words in front of a command that leave it to the shell, functions and aliases included."""
_IN_PLACE = _RESERVED | {"command", "builtin", "nocorrect"}
"""What these run changes the shell itself."""


def may_run_more(program: str) -> bool:
    """False where `Runner.run` finds one command in an exec of `program`, whatever its words are: no table says that it
    runs or reads anything else (the variables that it is given may, `agent.shell.environment`)."""
    return is_known(program) or program in _READS_SHELL


class Runner:
    """Follows commands into what they run."""

    def __init__(self, findings: Findings, texts: Texts) -> None:
        self.findings = findings
        self._texts = texts

    def run(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        """Follow one command."""
        if not words:
            return plain(state, NOTHING)
        if not self.findings.step(1 + len(words) // 8):
            return plain(state)
        if setting.depth > MAX_DEPTH:
            self.findings.unknown("commands are nested too deeply")
            return plain(state)
        first = words[0]
        if not first.known or (first.glob and not setting.final):
            return self._unnamed(words, state, setting)
        if setting.final or setting.bare:
            return self._program(words, state, setting)
        outcomes = self._defined(first.text, words, state, setting)
        return either(outcomes) if outcomes else self._program(words, state, setting)

    def _unnamed(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        """Words that another program wrote, run as a command, are recorded as what ``eval`` would make of them."""
        self.findings.unknown("the name of a command is not known before it runs")
        if words[0].made_by:
            self._record("eval", [Word("eval"), *words], state, setting, words[0].made_by)
        if words[0].text == UNKNOWN and len(words) > 1:
            self.run(words[1:], state, setting.inside("?"))
        return plain(state, unknown_of(words[0]))

    def _defined(self, name: str, words: Sequence[Word], state: State, setting: Setting) -> list[Outcome]:
        """What the text's own functions and aliases of that name do; beside it the program where they may be absent
        (an alias counts only in some shells, and not behind a backslash)."""
        functions = state.functions.get(name, ())
        alias = state.aliases.get(name)
        if not functions and alias is None:
            return []
        if setting.redirects:
            self.redirection(state, setting)
        outcomes: list[Outcome] = []
        for function in functions:
            if function is not None:
                self.findings.note(setting.depth, "function", shown_words(words))
                outcomes.append(self._texts.call(function, words[1:], state, setting))
        if alias is not None:
            self.findings.note(setting.depth, "alias", f"{name}={alias}")
            text = " ".join((alias, *(_quoted(word) for word in words[1:])))
            outcomes.append(
                self._texts.read_text(text, state._replace(aliases=_without(state.aliases, name)), setting.deeper())
            )
        if not functions or None in functions:
            outcomes.append(self._program(words, state, setting))
        return outcomes

    def _program(self, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
        program = basename(words[0].text) or words[0].text
        builtin = BUILTINS.get(program) if not setting.final or setting.wrappers else None
        steps = [] if builtin is not None else self._steps(program, words, state, setting)
        code_from = self._code_from(program, words, steps, state, setting)
        self._record(program, words, state, setting, code_from)
        if program in _EXPANDS_AGAIN and _expands_again(words[1:], names_only=program in _DECLARES):
            self.findings.unknown(f"{program} may expand a substitution in its words once more")
        if builtin is not None:
            return builtin(self, words, state, setting)
        outcomes = [self._follow(step, program, state, setting) for step in steps]
        followed = [outcome for outcome in outcomes if outcome is not None]
        if setting.assignments or state.exported:
            self._follow_environment(program, words, state, setting)
        if program in _IN_PLACE and followed:
            return either(followed)

        def content(name: Word) -> Word | None:
            return self.content(name, state, setting)

        inner = [outcome.output for outcome in followed]
        output = printed(program, words, setting.stdin, inner, content)
        if program == "mktemp" and _makes_plain_file(words, state, setting):
            output = self.findings.fresh_file()
        for name, text, appended in files_written(program, words, setting.stdin, content):
            state = state.written(name, text, self.findings.home, appended=appended)
        return plain(state, output)

    def _follow_environment(self, program: str, words: Sequence[Word], state: State, setting: Setting) -> None:
        """What runs because of the variables that are set for this command; they are not looked at twice."""
        bare, outside = setting._replace(assignments=()), state._replace(exported=frozenset())
        for payload in payloads(program, words, (*state.environment(), *setting.assignments)):
            for step in self._readable(payload, state, setting):
                self._follow(step, program, outside, bare)

    def _steps(self, program: str, words: Sequence[Word], state: State, setting: Setting) -> list[Step]:
        stdin = setting.stdin
        made_by = stdin.made_by if stdin is not None else ()
        steps, spelled = unwrap(program, words, stdin, made_by), plain_name(program)
        if not steps and spelled != program:
            steps = [step for step in unwrap(spelled, words, stdin, made_by) if not isinstance(step, Opaque)]
        if state.files and not setting.final:
            text = self._written_program(program, words[0], state, setting)
            if text is not None and text.text != "":
                language = language_of(text.text)
                steps.append(ShellText(text, tuple(words)) if language == SHELL else Code(language, text))
        if not any(isinstance(step, Script) for step in steps):
            return steps
        return [found for step in steps for found in self._readable(step, state, setting)]

    def _written_program(self, program: str, name: Word, state: State, setting: Setting) -> Word | None:
        """What a program holds that this text wrote: by its path, or by its name in a directory of programs."""
        if "/" in name.text:
            return self.content(name, state, setting)
        found = [text for path, text in state.files.items() if path.endswith(f"bin/{program}")]
        return (found[0] if len(found) == 1 else unknown_of(*found)) if found else None

    def _readable(self, step: Step, state: State, setting: Setting) -> list[Step]:
        """A script as its text, where that is known here; nothing where it is any other file."""
        if not isinstance(step, Script):
            return [step]
        text = self.content(step.path, state, setting)
        if text is not None and step.language in DIALECTS:
            return says(step.language, text)
        if text is not None and step.language == SHELL:
            return [ShellText(text, (step.path, *step.positional))]
        if text is not None:
            return [Code(step.language, text)]
        if reads_descriptor(step.path.text):
            return [Opaque("a shell or an interpreter reads its program from a descriptor")]
        return []

    def content(self, name: Word, state: State, setting: Setting) -> Word | None:
        """What the file called `name` holds, where this text wrote it or gives it by a descriptor."""
        if not name.known:
            return None
        if _STDIN.fullmatch(name.text):
            return setting.stdin
        if name.text.startswith("/dev/fd/"):
            return self.findings.opened(name.text)
        if not state.files:
            return None
        found = [state.files[path] for path in state.paths(name, self.findings.home) if path in state.files]
        return None if not found else found[0] if len(set(found)) == 1 else unknown_of(*found)

    def _code_from(
        self, program: str, words: Sequence[Word], steps: Sequence[Step], state: State, setting: Setting
    ) -> tuple[str, ...]:
        if program == "eval":
            return makers(words[1:])
        if program in ("source", ".", "trap"):
            content = self.content(words[1], state, setting) if len(words) > 1 and program != "trap" else None
            return content.made_by if content is not None else makers(words[1:2])
        return makers(step.text for step in steps if isinstance(step, (ShellText, Code)))

    def _record(
        self, program: str, words: Sequence[Word], state: State, setting: Setting, code_from: tuple[str, ...]
    ) -> None:
        argv = [word.text for word in words]
        if program == "dd":
            argv += _dd_operands(setting)
        if program in _DELETES and not _FINDERS.isdisjoint(setting.wrappers):
            words = [words[0], Word("-r"), *words[1:]]  # once for everything that is found is the whole tree
            argv = [word.text for word in words]
        globs = tuple(index for index, word in enumerate(words) if word.glob)
        self._add(program, tuple(argv), state, setting, code_from, globs=globs)

    def _add(
        self,
        program: str,
        argv: tuple[str, ...],
        state: State,
        setting: Setting,
        code_from: tuple[str, ...] = (),
        *,
        globs: tuple[int, ...] = (),
    ) -> None:
        environment = state.environment() if state.exported else ()
        what = f"unwrapped by {setting.wrappers[-1]}" if setting.wrappers else "command"
        for cwd in state.cwd:
            command = SimpleCommand(
                program,
                argv,
                cwd,
                (*environment, *setting.assignments),
                setting.redirects,
                setting.wrappers,
                setting.stdin.made_by if setting.stdin is not None else (),
                code_from,
                globs,
            )
            self.findings.add(command, setting.depth, what, setting.at)

    def redirection(self, state: State, setting: Setting) -> None:
        """Redirections that stand alone, or that every command of a group has."""
        self._add("", (), state, setting)

    def named(self, program: str, state: State, setting: Setting) -> None:
        """A finding that is no program (`<fork-bomb>`)."""
        self._add(program, (program,), state, setting)

    def _follow(self, step: Step, program: str, state: State, setting: Setting) -> Outcome | None:
        inner = setting.inside(program)
        match step:
            case Inner(words, directory, assignments):
                bare = setting.bare or program not in _RESERVED
                inner = inner._replace(assignments=(*setting.assignments, *assignments), bare=bare)
                state = self.moved(state, directory) if directory is not None else state
                return self.run(words, state, inner)
            case ShellText(text, positional):
                return self.text(text, _of_shell(state, positional, setting), inner)
            case Code(language, text):
                self.findings.note(inner.depth, f"code ({language})", text.text)
                self.code(text, language, state, inner)
            case Opaque(reason):
                self.findings.unknown(reason)
            case Script():
                pass  # each exec in it is decided by itself, and where the ring runs, it reads the file
            case Touches(operator, target):
                self.redirection(state, inner._replace(redirects=((operator, target.text),)))
        return None

    def text(self, text: Word, state: State, setting: Setting) -> Outcome:
        """Text that a shell reads."""
        if not text.known:
            self.findings.unknown("a shell runs text that is not known before it runs")
            if not text.text.strip(f"{UNKNOWN} \n"):
                return plain(state, unknown_of(text))
            state = state.assign(PLACEHOLDER[2:-1], (unknown_of(text),))
            text = Word(text.text.replace(UNKNOWN, PLACEHOLDER))
        text = text._replace(text=text.text.replace(NUL, ""))  # bash ignores it in what it reads
        if setting.wrappers:
            self.findings.note(setting.depth, f"text run by {setting.wrappers[-1]}", text.text)
        return self._texts.read_text(text.text, state, setting._replace(final=False, bare=False, redirects=()).deeper())

    def code(self, text: Word, language: str, state: State, setting: Setting) -> None:
        """Code that an interpreter reads."""
        if not text.known:
            self.findings.unknown("an interpreter runs code that is not known before it runs")
        if setting.depth > MAX_DEPTH:
            self.findings.unknown("commands are nested too deeply")
            return
        for call in calls_of(text.text, language, body=setting.body):
            if not self.findings.step():
                return
            match call:
                case RunsText(shell):
                    self.text(Word(shell), state._replace(functions={}, aliases={}), setting)
                case RunsArgv(argv):
                    self.run([Word(word) for word in argv], state, setting._replace(final=True).deeper())
                case RunsCode(code):
                    self.code(Word(code), language, state, setting.deeper())
                case RunsUnknown(what):
                    self.findings.unknown(what)
                case Opens(operator, path):
                    self.redirection(state, setting._replace(redirects=((operator, path),)))

    def moved(self, state: State, directory: Word) -> State:
        """`state` in another directory."""
        if not directory.known or directory.glob:
            return state.moved(None)
        home = self.findings.home
        targets = [normalise_operand(directory.text, cwd, home) for cwd in state.cwd]
        return state.moved(*(None if target == UNKNOWN else target for target in targets))


_STDIN = re.compile(r"/dev/stdin|/dev/fd/0|/proc/(?:self|thread-self)/fd/0")


def either(outcomes: Sequence[Outcome]) -> Outcome:
    """One of several things happened, and it is not known which."""
    first = outcomes[0]
    if len(outcomes) == 1:
        return first
    success, failure = first.success, first.failure
    for other in outcomes[1:]:
        success, failure = join(success, other.success), join(failure, other.failure)
    outputs = [outcome.output for outcome in outcomes]
    return Outcome(success, failure, first.output if len(set(outputs)) == 1 else unknown_of(*outputs))


def _of_shell(state: State, positional: Sequence[Word], setting: Setting) -> State:
    """What a shell started here begins with: of the variables only those that it finds in its environment."""
    exported = state.variables if "*" in state.exported else state.exported
    variables = {name: state.variables[name] for name in exported if name in state.variables}
    variables |= {name: ((Word(value),),) for name, value in setting.assignments}
    shell = positional[0] if positional else Word("sh")
    given = tuple(positional[1:])
    return state._replace(positional=given, name=shell, functions={}, aliases={}, variables=variables, stack=())


def _makes_plain_file(words: Sequence[Word], state: State, setting: Setting) -> bool:
    """mktemp(1) without a template: a new path below the session's own TMPDIR, which counts as /tmp."""
    elsewhere = "TMPDIR" in state.variables or any(name == "TMPDIR" for name, _ in setting.assignments)
    return not elsewhere and all(word.text in ("-d", "--directory", "-q", "--quiet") for word in words[1:])


def _expands_again(words: Sequence[Word], *, names_only: bool) -> bool:
    """Is there a substitution where the builtin reads an arithmetic expression (a subscript, a value for ``-i``)?"""
    if names_only and not any(word.text.startswith("-") and "i" in word.text for word in words):
        arrays = [word.text for word in words if re.match(r"\w+\+?=\(", word.text)]
        names = (word.text.partition("=")[0] for word in words)
        return any("$(" in text or "`" in text for text in (*names, *arrays))
    return any("$(" in word.text or "`" in word.text for word in words)


def _without(aliases: Mapping[str, str], name: str) -> dict[str, str]:
    """The aliases that count in the text of the alias `name` (bash(1), "ALIASES")."""
    return {other: text for other, text in aliases.items() if other != name}


def _quoted(word: Word) -> str:
    if not word.known or word.glob:
        return word.text.replace(UNKNOWN, PLACEHOLDER)
    return "'" + word.text.replace("'", "'\\''") + "'"


def _dd_operands(setting: Setting) -> list[str]:
    """dd(1) reads standard input and writes standard output where ``if=`` and ``of=`` are not given."""
    found: list[str] = []
    for operator, target in setting.redirects:
        if operator.endswith("<") or operator == "<>":
            found.append(f"if={target}")
        elif ">" in operator and "&" not in operator and not operator.startswith("2"):
            found.append(f"of={target}")
    return found
