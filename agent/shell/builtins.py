"""Builtins that change what later words mean: cd, set, read, export, alias, eval, … (bash(1),
"SHELL BUILTIN COMMANDS").

Rules: what a builtin leaves behind that is not known is unknown, never what it was before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from agent.policy.request import UNKNOWN
from agent.shell.directories import change_directory, pop_directory, push_directory
from agent.shell.findings import PLACEHOLDER
from agent.shell.pieces import NOTHING, Value, Word, joined_words, unknown_of
from agent.shell.printed import print_formatted
from agent.shell.setting import Running, Setting
from agent.shell.state import MAX_VALUES, Outcome, State, plain, shown
from agent.shell.steps import reads_descriptor

type Builtin = Callable[[Running, Sequence[Word], State, Setting], Outcome]

_NAME = re.compile(r"[A-Za-z_]\w*")
_BLANKS = " \t\n"


def evaluate(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    given = words[2:] if len(words) > 1 and words[1].text == "--" else words[1:]
    return runner.text(joined_words(given), state, setting.inside("eval"))


def source(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """A file that this text did not write is not read (like any script)."""
    given = words[2:] if len(words) > 1 and words[1].text == "--" else words[1:]
    if not given:
        return plain(state)
    content = runner.content(given[0], state, setting)
    if content is not None:
        inside = state._replace(positional=tuple(given[1:])) if len(given) > 1 else state
        outcome = runner.text(content, inside, setting.inside("source"))
        restored = [end._replace(positional=state.positional) for end in outcome[:2]]
        return Outcome(restored[0], restored[1], outcome.output)
    if reads_descriptor(given[0].text):
        runner.findings.unknown("a shell reads commands from a descriptor")
    return plain(state)


def trap(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    operands = [word for word in words[1:] if not word.text.startswith("-") or len(word.text) > 2]
    if len(operands) > 1 and operands[0].text:
        runner.text(operands[0], state, setting.inside("trap"))
    return plain(state, NOTHING)


_KEYWORDS = frozenset(
    [
        *("if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for", "in"),
        *("select", "function", "time", "coproc"),
    ]
)


def set_alias(runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    aliases = dict(state.aliases)
    for word in words[1:]:
        name, equals, text = word.text.partition("=")
        if name in _KEYWORDS:
            runner.findings.unknown("an alias changes a word of the shell's grammar")
        if equals:
            aliases[name] = text.replace(UNKNOWN, PLACEHOLDER)
    return plain(state._replace(aliases=aliases), NOTHING)


def set_options(_runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    """``set -- WORDS`` gives the positional parameters; ``set -a`` exports whatever is assigned later."""
    for index, word in enumerate(words[1:], 1):
        if "a" in word.text and re.fullmatch(r"-[a-zA-Z]+", word.text):
            state = state.export("*")
        if word.text == "--" or not word.text.startswith(("-", "+")):
            rest = words[index + (word.text == "--") :]
            return plain(state._replace(positional=tuple(rest)), NOTHING)
    return plain(state, NOTHING)


def shift(_runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    count = words[1].text if len(words) > 1 else "1"
    if state.positional is None or not count.isdecimal():
        return plain(state._replace(positional=None), NOTHING)
    dropped, kept = state.positional[: int(count[:4])], state.positional[int(count[:4]) :]
    uncertain = any(word.text == UNKNOWN for word in dropped)
    return plain(state._replace(positional=None if uncertain else kept), NOTHING)


def declare(_runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    """export, declare, local, readonly. (Names with plain values are assigned where the grammar sees them.)"""
    options = "".join(word.text[1:] for word in words[1:] if word.text.startswith("-"))
    names: list[str] = []
    other = words[0].text != "export" and set(options) & set("nilu")  # a reference, a number, another case
    for word in words[1:]:
        name, equals, value = word.text.partition("=")
        if _NAME.fullmatch(name) is None:
            continue
        names.append(name)
        if equals and other:
            state = state.forget(name)
        elif equals and [shown(known) for known in state.variables.get(name, ())] != [value]:
            state = state.assign(name, (Word(value, word.glob, word.made_by),))
    if "n" in options and words[0].text == "export":
        return plain(state._replace(exported=state.exported.difference(names)), NOTHING)
    if words[0].text == "export" or "x" in options:
        state = state.export(*names)
    return plain(state, NOTHING)


def read(_runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """read(1): a line of what is piped in, in words."""
    names, options = _read_arguments(words)
    array = next((value for letter, value in options if letter == "a"), None)
    names = [array] if array is not None else names or ["REPLY"]
    stdin = setting.stdin
    plain_way = "IFS" not in state.variables and all(letter in "arsepdt" for letter, _ in options)
    plain_way &= not any(name == "IFS" for name, _ in setting.assignments)
    if stdin is None or not stdin.known or not plain_way:
        for name in names:
            state = state.assign(name, (unknown_of(stdin),) if stdin is not None else None)
        return plain(state, NOTHING)
    whole = any(letter == "d" and not value for letter, value in options)
    lines = [stdin.text] if whole else stdin.text.splitlines()
    if len(lines) > MAX_VALUES:
        return plain(_each(state, names, (unknown_of(stdin),)), NOTHING)
    raw = any(letter == "r" for letter, _ in options)
    if not raw and "\\" in stdin.text:
        return plain(_each(state, names, (unknown_of(stdin),)), NOTHING)
    if array is not None:
        values = [tuple(Word(part, stdin.glob, stdin.made_by) for part in line.split()) for line in lines]
        return plain(state.assign_any(array, tuple(values) or ((),)), NOTHING)
    for index, name in enumerate(names):
        parts = [_part(line, index, len(names)) for line in lines] or [""]
        state = state.assign_any(name, tuple((Word(part, stdin.glob, stdin.made_by),) for part in parts))
    return plain(state, NOTHING)


def _each(state: State, names: Sequence[str], value: Value) -> State:
    for name in names:
        state = state.assign(name, value)
    return state


def _part(line: str, index: int, count: int) -> str:
    parts = line.split(None, count - 1)
    return parts[index].strip(_BLANKS) if index < len(parts) else ""


def _read_arguments(words: Sequence[Word]) -> tuple[list[str], list[tuple[str, str]]]:
    options: list[tuple[str, str]] = []
    index = 1
    while index < len(words) and words[index].text.startswith("-") and len(words[index].text) > 1:
        text = words[index].text
        index += 1
        for at, letter in enumerate(text[1:], 2):
            if letter in "adinNptu":
                options.append((letter, text[at:] or (words[index].text if index < len(words) else "")))
                index += not text[at:]
                break
            options.append((letter, ""))
    return [word.text for word in words[index:] if _NAME.fullmatch(word.text)], options


def map_file(_runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    """mapfile: an array of the lines piped in."""
    names = [word.text for word in words[1:] if _NAME.fullmatch(word.text)]
    name, stdin = names[-1] if names else "MAPFILE", setting.stdin
    if stdin is None or not stdin.known or any(word.text not in ("-t", name) for word in words[1:]):
        return plain(state.assign(name, (unknown_of(stdin),) if stdin is not None else None), NOTHING)
    lines = stdin.text.splitlines(keepends=len(words) < 2 or words[1].text != "-t")
    return plain(state.assign(name, tuple(Word(line, stdin.glob, stdin.made_by) for line in lines)), NOTHING)


def forget(_runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    """getopts, let, wait -p: what they leave in the variables that they name is not known."""
    names = [found[0] for word in words[1:] if (found := _NAME.match(word.text))]
    return plain(state.forget(*names, "OPTARG"), NOTHING)


def unset(_runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    names = {word.text for word in words[1:]}
    functions = {name: found for name, found in state.functions.items() if name not in names}
    for name in names:
        state = state.assign(name, (NOTHING,)) if _NAME.fullmatch(name) else state
    return plain(state._replace(functions=functions, exported=state.exported - names), NOTHING)


def quiet(_runner: Running, _words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    return plain(state, NOTHING)


def printf(_runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    made = joined_words(words[1:]).made_by
    if len(words) > 2 and words[1].text == "-v":
        text = print_formatted(words[3:])
        return plain(state.assign(words[2].text, (text._replace(made_by=made),)), NOTHING)
    return plain(state, print_formatted(words[1:])._replace(made_by=(*made, "printf")))


BUILTINS: Mapping[str, Builtin] = MappingProxyType(
    {
        "cd": change_directory,
        "chdir": change_directory,
        "pushd": push_directory,
        "popd": pop_directory,
        "eval": evaluate,
        "source": source,
        ".": source,
        "trap": trap,
        "alias": set_alias,
        "unalias": quiet,  # an alias is followed beside the command itself, so nothing is lost
        "set": set_options,
        "shift": shift,
        "export": declare,
        "declare": declare,
        "typeset": declare,
        "local": declare,
        "readonly": declare,
        "read": read,
        "getopts": forget,
        "let": forget,
        "unset": unset,
        ":": quiet,
        "true": quiet,
        "false": quiet,
        "shopt": quiet,
        "umask": quiet,
        "ulimit": quiet,
        "test": quiet,
        "[": quiet,
    }
)
