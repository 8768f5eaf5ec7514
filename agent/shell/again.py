"""What a shell expands or runs a second time: subscripts in arithmetic, and builtins that are given text to run.

Rules kept here:
- A subscript is expanded when the expression or the name that it stands in is read, however it was quoted before
  (bash(1), "ARITHMETIC EVALUATION", "Arrays"): a value with a substitution in a subscript, or with one half of it, is
  unverifiable in a text that reads values so.
- What a builtin puts in the place of a program (``hash -p``, ``enable -f``, ``BASH_ALIASES``) makes the text
  unverifiable; text that it is given to run is followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from agent.expressions import expression
from agent.shell.builtins import Builtin, map_file, printf
from agent.shell.findings import Findings
from agent.shell.pieces import NOTHING, Word
from agent.shell.printed import print_formatted
from agent.shell.setting import Running, Setting
from agent.shell.state import Outcome, State, plain
from agent.shell.steps import word_at

TABLES = frozenset(("BASH_ALIASES", "BASH_CMDS"))
"""Arrays whose elements are what a name runs (bash(1), "Shell Variables")."""

_SUBSTITUTION = r"\$\((?!\()|`"
_BRACKETS = expression(rf"(?P<name>\w\[)|(?P<open>\[)|(?P<close>\])|{_SUBSTITUTION}")
_ESCAPED = expression(rf"(?P<name>\w\[)|(?P<open>\[)|(?P<close>\])|\\(?:{_SUBSTITUTION})")
_READS = expression(
    r"\(\(|\$\[|\[\[|(?<![\w-])-(?:eq|ne|lt|gt|le|ge|v|R)\b|\$\{!|\$\{\w+(?:\[|:[^-=?+}])|\]\+?=|\w=\("
    r"|\b(?:let|declare|typeset|local|readonly|export|printf|read|unset|mapfile|readarray|wait|getopts|test)\b"
)
WHY = "a substitution in a subscript may be made when the value is read as a number or a name"


def look(words: Sequence[Word], text: str, findings: Findings) -> None:
    """Note where one of `words`, which `text` has, holds a subscript with a substitution that is still to be made."""
    if any("[" in word.text and _hidden(word.text, half=True) for word in words) and _READS.search(text):
        findings.unknown(WHY)


def look_at_text(text: str, findings: Findings) -> None:
    """The same for what stands quoted in `text`, and for what it expands as a prompt."""
    if "@P}" in text:
        findings.unknown("a value is expanded as a prompt is")
    if "[" not in text or not ("$(" in text or "`" in text):
        return
    parts = text.split("'")  # not all of them are quoted: which, does not matter
    if ((len(parts) > 1 and any(map(_hidden, parts))) or _hidden(text, _ESCAPED)) and _READS.search(text):
        findings.unknown(WHY)


def _hidden(text: str, marks: re.Pattern[str] = _BRACKETS, *, half: bool = False) -> bool:
    """Is there a substitution in a subscript, or (`half`) a subscript that does not end? In one pass."""
    depth = 0
    for found in marks.finditer(text):
        match found.lastgroup:
            case "name":
                depth += 1
            case "open":
                depth += depth > 0
            case "close":
                depth -= depth > 0
            case _ if depth:
                return True
    return half and depth > 0


def hash_program(runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    """``hash -p PATH NAME``: NAME is PATH from here on."""
    for index, word in enumerate(words[1:], 1):
        if word.text.startswith("-") and "p" in word.text:
            runner.findings.unknown("hash gives a program another name")
            path, names = word_at(words, index + 1), words[index + 2 :]
            aliases = {name.text: path.text for name in names if path.known and name.known}
            return plain(state._replace(aliases={**state.aliases, **aliases}), NOTHING)
    return plain(state, NOTHING)


def complete(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """compgen, complete: -C TEXT and -F NAME run, -W TEXT is expanded (bash(1), "Programmable Completion")."""
    for index, word in enumerate(words[1:], 1):
        if word.text in ("-C", "-F"):
            runner.text(word_at(words, index + 1), state, setting.inside(words[0].text))
        elif re.match(r"-[a-zA-Z]*[CF]", word.text):
            runner.text(word._replace(text=re.split("[CF]", word.text, maxsplit=1)[1]), state, setting)
        elif "$(" in word.text or "`" in word.text:
            runner.findings.unknown(f"{words[0].text} expands its words once more")
    return plain(state)


def bind(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """``bind -x 'KEYS: TEXT'``."""
    if any(re.match(r"-\w*x", word.text) for word in words[1:]):
        for word in words[1:]:
            runner.text(word._replace(text=word.text.partition(":")[2]), state, setting.inside("bind"))
    return plain(state)


def enable(runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    """``enable -f LIBRARY NAME``."""
    if any(re.match(r"-\w*f", word.text) for word in words[1:]):
        runner.findings.unknown("enable loads a library into the shell")
    return plain(state, NOTHING)


def fix(runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    """fc runs lines of the history, unless it only lists them."""
    if not any(re.match(r"-\w*l", word.text) for word in words[1:]):
        runner.findings.unknown("fc runs lines of the history")
    return plain(state)


def map_lines(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """mapfile: ``-C TEXT`` runs with a number and a line behind it."""
    for index, word in enumerate(words[1:], 1):
        called = re.match(r"-\w*C(.*)", word.text, re.DOTALL)
        if called is not None:
            text = word._replace(text=called[1]) if called[1] else word_at(words, index + 1)
            runner.text(text._replace(text=f"{text.text} 0 x"), state, setting.inside(words[0].text))
    return map_file(runner, words, state, setting)


def print_into(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """``printf -v NAME FORMAT …``."""
    if len(words) > 2 and words[1].text.startswith("-v"):
        made = print_formatted(words[3 if words[1].text == "-v" else 2 :])
        if _hidden(made.text):
            runner.findings.unknown(WHY)
    return printf(runner, words, state, setting)


BUILTINS: Mapping[str, Builtin] = MappingProxyType(
    {
        "hash": hash_program,
        "compgen": complete,
        "complete": complete,
        "bind": bind,
        "enable": enable,
        "fc": fix,
        "printf": print_into,
        "mapfile": map_lines,
        "readarray": map_lines,
    }
)
