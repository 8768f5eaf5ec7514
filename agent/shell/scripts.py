"""Scripts: which files a command line runs as text, and what such a text can run.

Rules kept here:
- Files are named here and read by whoever can (`agent.enforce.commands.scripts`); this module does no I/O.
- Only programs that read a script by themselves are looked at: what starts another program (env, timeout) is seen again
  when that one is executed.
- Nothing is taken for granted that differs from one run to the next: a body is understood without its arguments and its
  directory unless they are given, so that one analysis serves every run of a script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from agent.policy.request import SimpleCommand
from agent.shell.analyse import Walker
from agent.shell.environment import payloads
from agent.shell.findings import Findings
from agent.shell.interpreters import is_interpreter
from agent.shell.pieces import Word
from agent.shell.setting import Setting
from agent.shell.state import State
from agent.shell.steps import SHELL, Code, Inner, Script, ShellText, basename, reads_descriptor
from agent.shell.unwrap import unwrap
from agent.shell.wrappers import LOADERS, MULTICALL, SHELLS
from agent.values import dataclass

MAX_STEPS = 4_000
"""Commands and calls of one body that are followed."""
STDIN = "/proc/self/fd/0"
_AWKS = frozenset(("awk", "gawk", "mawk", "nawk"))
_NESTED = 4

type Environment = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Body:
    """What a script can run. `whole`: nothing was left out because of its size."""

    commands: tuple[SimpleCommand, ...]
    whole: bool


@lru_cache(maxsize=4096)  # asked of the same programs at every exec
def reads_scripts(program: str) -> bool:
    """Does a program of this base name read a file as shell text or code?"""
    return program in SHELLS or program in _AWKS or program in MULTICALL or is_interpreter(program)


def scripts(program: str, argv: Sequence[str], environment: Environment = ()) -> list[Script]:
    """The files that `argv`, run as the program of this path or name, reads and runs. Standard input is `STDIN`."""
    name = basename(program)
    words = [Word(name), *(Word(word) for word in argv[1:])]
    return list(_scripts(name, words, environment, _NESTED))


def _scripts(name: str, words: Sequence[Word], environment: Environment, depth: int) -> Iterator[Script]:
    if environment:
        yield from (step for step in payloads(name, words, environment) if isinstance(step, Script))
    if name in MULTICALL or name.startswith(LOADERS):
        inner = [step.words for step in unwrap(name, words, None) if isinstance(step, Inner)]
        for rest in inner[:1] if depth else []:
            yield from _scripts(basename(rest[0].text), rest, environment, depth - 1)
        return
    if not reads_scripts(name):
        return
    steps = unwrap(name, words, None)
    yield from (step for step in steps if isinstance(step, Script) and not reads_descriptor(step.path.text))
    steps = [step for step in steps if not isinstance(step, Script) or not reads_descriptor(step.path.text)]
    if name not in _AWKS and not any(isinstance(step, (Script, ShellText, Code)) for step in steps):
        language = SHELL if name in SHELLS else re.sub(r"[\d.]+$", "", name)
        opened = [index for index, word in enumerate(words) if index and reads_descriptor(word.text)]
        for index in opened[:1]:
            yield Script(language, words[index], tuple(words[index + 1 :]))
        if not opened:
            yield Script(language, Word(STDIN))


def understand(
    script: Script, text: str, *, home: str, cwd: str | None = None, arguments: Sequence[str] | None = None
) -> Body:
    """What the body `text` of `script` can run. `cwd`, `arguments`: None where they are not taken into account."""
    findings = Findings(home, MAX_STEPS)
    walker = Walker(findings)
    positional = None if arguments is None else tuple(Word(word) for word in arguments)
    state = State(cwd=(cwd,), positional=positional, name=script.path)
    setting = Setting(wrappers=(basename(script.path.text),), body=True)
    try:
        if script.language == SHELL:
            walker.read_text(text.replace("\0", ""), state, setting)
        else:
            walker.runner.code(Word(_code(script.language, text)), script.language, state, setting)
    except RecursionError:
        findings.cut = True
    return Body(tuple(findings.commands), not findings.cut)


def _code(language: str, text: str) -> str:
    """The part of a file that is code: without documentation, data and page text (perlpod(1), ruby(1), php(1))."""
    match language:
        case "perl":
            text = re.sub(r"^=[a-z].*?(?:^=cut\b[^\n]*$|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
            return re.split(r"^__(?:END|DATA)__$", text, maxsplit=1, flags=re.MULTILINE)[0]
        case "ruby":
            text = re.sub(r"^=begin\b.*?(?:^=end\b[^\n]*$|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
            return re.split(r"^__END__$", text, maxsplit=1, flags=re.MULTILINE)[0]
        case "php":
            return "\n".join(re.findall(r"<\?(?:php\b|=)?(.*?)(?:\?>|\Z)", text, re.DOTALL))
    return text
