"""Command lines of shells and interpreters: where the text or code is that they run.

Rules: a script file is named, not read; a program read from a pipe whose content is unknown is unknown. Sources:
bash(1), dash(1), python(1), perlrun(1), ruby(1), node(1), php(1), lua(1), su(1), gawk(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import unquote

from agent.policy.request import UNKNOWN
from agent.shell.getopt import read_options
from agent.shell.pieces import Word
from agent.shell.steps import SHELL, Code, Inner, Opaque, Script, ShellText, Step, basename, reads_descriptor, word_at
from agent.shell.wrappers import SHELLS, Wrapper
from agent.values import dataclass

_SHELL_VALUED = frozenset(("-o", "+o", "-O", "+O", "--rcfile", "--init-file", "-C", "--init-command"))


def shell_steps(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """A shell's command line (bash(1), dash(1)): -c TEXT [$0 [$1…]], a script, or its standard input."""
    index, reads_text, reads_stdin = 1, False, False
    started: list[Step] = []
    while index < len(words):
        text = words[index].text
        if text.startswith(UNKNOWN) and reads_text:
            break
        if text.startswith(UNKNOWN):
            return [Opaque("a shell whose options are not known before it runs")]
        if text in ("--", "-"):
            index += 1
            break
        if not text.startswith(("-", "+")):
            break
        if not text.startswith("--") and text.startswith("-"):
            reads_text |= "c" in text
            reads_stdin |= "s" in text
        reads_text |= text in ("--command",)
        bundled = not text.startswith("--") and text[-1:] in "oO"
        if text in ("--rcfile", "--init-file"):
            started.append(Script(SHELL, word_at(words, index + 1)))
        index += 2 if text in _SHELL_VALUED or bundled else 1
    if reads_text:
        if index >= len(words):
            return started
        return [*started, ShellText(words[index], tuple(words[index + 1 :]))]
    if index < len(words) and not reads_stdin:
        return [*started, Script(SHELL, words[index], tuple(words[index + 1 :]))]
    return [*started, ShellText(stdin, (words[0], *words[index:]))] if stdin is not None else started


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """`code`: letters whose value is code. `valued`: letters with a value, attached or next. `attached`: letters that
    take the rest of their word. `ends`: letters after which the rest is the program's. `longs`: long code options."""

    language: str
    code: str
    valued: str = ""
    attached: str = ""
    ends: str = ""
    longs: tuple[str, ...] = ()


_INTERPRETERS: Mapping[str, _Interpreter] = MappingProxyType(
    {
        "python": _Interpreter("python", "c", "WXQ", ends="m"),
        "pypy": _Interpreter("python", "c", "WXQ", ends="m"),
        "perl": _Interpreter("perl", "eE", "I", attached="MmDxidCVF0l"),
        "ruby": _Interpreter("ruby", "e", "IrCEX", attached="KTWxFi0"),
        "node": _Interpreter("node", "ep", "rC", longs=("--eval", "--print")),
        "nodejs": _Interpreter("node", "ep", "rC", longs=("--eval", "--print")),
        "bun": _Interpreter("node", "ep", "r", longs=("--eval", "--print")),
        "php": _Interpreter("php", "rBRE", "dfcztS"),
        "lua": _Interpreter("lua", "e", "l"),
        "luajit": _Interpreter("lua", "e", "lj"),
    }
)


def is_interpreter(program: str) -> bool:
    """Does `program` read code of a language that is known here, versions (``python3.12``) included?"""
    return _spec(program) is not None


def interpreter_steps(program: str, words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """The inline code of `program` where it is an interpreter, versions (``python3.12``) included."""
    spec = _spec(program)
    return _interpreter(words, stdin, spec) if spec is not None else []


def _spec(program: str) -> _Interpreter | None:
    return _INTERPRETERS.get(re.sub(r"[\d.]+$", "", program))


def language_of(text: str) -> str:
    """The language of a script by its first line (execve(2), "Interpreter scripts"); a shell's without one."""
    found = re.match(r"#![ \t]*(\S+)[ \t]*(?:-S[ \t]+)?(\S*)", text)
    if found is None:
        return SHELL
    path = found[2] if found[1].endswith("/env") else found[1]
    spec = _INTERPRETERS.get(re.sub(r"[\d.]+$", "", path.rpartition("/")[2]))
    return spec.language if spec is not None else SHELL


def _interpreter(words: Sequence[Word], stdin: Word | None, spec: _Interpreter) -> list[Step]:
    found: list[Step] = []
    index = 1
    while index < len(words):
        text = words[index].text
        if text.startswith(UNKNOWN):
            return [*found, Opaque("an interpreter whose options are not known before it runs")]
        if text == "-" or not text.startswith("-"):
            break
        index += 1
        if text == "--":
            break
        name, equals, value = text.partition("=")
        if text.startswith("--"):
            if name in spec.longs:
                given = words[index - 1]._replace(text=value) if equals else word_at(words, index)
                found.append(Code(spec.language, given))
                index += not equals
            elif spec.language == "node" and name in _NODE_LOADS:
                given = words[index - 1]._replace(text=value) if equals else word_at(words, index)
                found += _data_url(given)
                index += not equals
            continue
        index, ended = _cluster(words, index, text, spec, found)
        if ended:
            return found
    script = word_at(words, index)
    if script.text not in ("", "-") and (not found or spec.language == "lua"):
        found.append(Script(spec.language, script, tuple(words[index + 1 :])))
    elif not found and stdin is not None:
        found.append(Code(spec.language, stdin))
    return found


_NODE_LOADS = frozenset(("--import", "--require", "--loader", "--experimental-loader"))
_PROGRAMS_OF_MODULES = frozenset(
    ("pip", "pipx", "uv", "poetry", "twine", "hatch", "pdm", "conda", "ansible", "IPython")
)


def _data_url(given: Word) -> list[Step]:
    """``node --import data:text/javascript,CODE`` (node(1))."""
    found = re.match(r"data:[^,]*?(;base64)?,(.*)", given.text, re.DOTALL)
    if found is None:
        return []
    text = unquote(found[2])
    if found[1]:
        return [Code("node", given._replace(text=f"eval(atob({text!r}))"))]
    return [Code("node", given._replace(text=text))]


def _module(name: str, arguments: tuple[Word, ...]) -> list[Step]:
    """``python -m pip …`` is pip; ``python -m timeit CODE`` runs code."""
    if name in _PROGRAMS_OF_MODULES:
        return [Inner((Word(name.lower()), *arguments))]
    if name == "timeit":
        return [Code("python", word) for word in arguments if not re.fullmatch(r"-\w*\d*|--\w+", word.text)]
    return []


def _cluster(words: Sequence[Word], index: int, text: str, spec: _Interpreter, found: list[Step]) -> tuple[int, bool]:
    for at, letter in enumerate(text[1:], 2):
        if letter in spec.ends:
            module = (text[at:] or word_at(words, index).text).replace(".", "/")
            arguments = tuple(words[index + (not text[at:]) :])
            found += _module(module, arguments)
            found += [Script(spec.language, Word(module + end), arguments) for end in (".py", "/__main__.py")]
            return index, True
        if letter in "Mm" and spec.language == "perl" and re.search(r"[;({`'\"]", text[at:]):
            found.append(Code("perl", words[index - 1]._replace(text=f"use {text[at:].lstrip('-')};")))
        if letter in spec.attached and not (letter in "0l" and text[at : at + 1].isalpha()):
            return index, False
        if letter in spec.code or letter in spec.valued:
            rest = text[at:]
            if spec.language == "node" and letter == "p" and rest[:1] == "e":
                continue
            value = words[index - 1]._replace(text=rest) if rest else word_at(words, index)
            if letter in spec.code:
                found.append(Code(spec.language, value))
            return index + (not rest), spec.language == "python" and letter in spec.code
    return index, False


def su_steps(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """su(1): options anywhere, -c TEXT, which goes to the shell of -s (any program); else a shell that reads standard
    input."""
    found: list[Step] = []
    shells = [w.text[8:] for w in words if w.text.startswith("--shell=")]
    for index, word in enumerate(words[1:], 1):
        name, equals, value = word.text.partition("=")
        if name in ("--command", "--session-command") and equals:
            found.append(ShellText(word._replace(text=value)))
        elif name in ("--command", "--session-command") or re.fullmatch(r"-[lmpPfT]*c", word.text):
            found.append(ShellText(word_at(words, index + 1)))
        elif re.match(r"-[lmpPfT]*c.", word.text) and not equals:
            found.append(ShellText(word._replace(text=word.text.partition("c")[2])))
        elif word.text in ("-s", "--shell"):
            shells.append(word_at(words, index + 1).text)
    for shell in shells:
        if shell and basename(shell) not in SHELLS:
            found += [Inner((Word(shell), Word("-c"), step.text)) for step in found if isinstance(step, ShellText)]
    return found or ([ShellText(stdin)] if stdin is not None else [])


_AWK = Wrapper(
    "F:v:f:W:e:E:i:l:bcCd::D::ghIkL::MnNo::Op::PrsStVc",
    "assign= field-separator= file= exec= source= include= load= sandbox posix traditional re-interval csv bignum"
    " characters-as-bytes non-decimal-data optimize no-optimize use-lc-numeric lint unsafe",
    lenient=True,
)


def awk_steps(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """awk and the tracers whose programs read like awk's: the program is the first operand, or in ``-e``."""
    read = read_options(words, 1, _AWK)
    code: list[Step] = [Code("awk", value) for name, value in read.given if name in ("e", "source")]
    files = [value for name, value in read.given if name in ("f", "file", "E", "exec")]
    from_stdin = [file.text for file in files if file.text == "-" or reads_descriptor(file.text)]
    if from_stdin and stdin is not None:
        return [*code, Code("awk", stdin)]
    if files or code:
        return [*code, *(Script("awk", file) for file in files if file.text != "-")]
    if read.end >= len(words):
        return []
    if basename(words[0].text) in ("bpftrace", "stap"):
        return [Script("awk", words[read.end])]
    return [Code("awk", words[read.end])]
