"""Does a command rule's `match` describe a command? Three answers: YES, NO, and MAYBE.

Rules: every key given must hold, the weakest decides; `operands` asks for one that fits, an exception for all
(`covers`); a program is matched by meaning: `mkfs` is also `mkfs.ext4` and `mke2fs`, `python` also `python3.12`; MAYBE
means that it hangs on text which is known only when the command runs (a variable from outside, an unknown directory).

What a `CommandMatch` may say:
- `program`: base names, ``*`` and ``?`` allowed.
- `subcommand`: the first operands in order (options in front of them, with their values, are stepped over).
- `options`: each must be there, by long name (``recursive``), letter (``r``) or semantic name (`agent.policy.options`).
- `operands`: globs as in `agent.policy.operands`. Where `options` asks for ``recursive``, an operand above the pattern
  fits too: ``rm -r /`` deletes ``/etc/**``.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

from agent.policy.model import CommandMatch
from agent.policy.operands import Fit, operand_fit, operand_within
from agent.policy.options import GENERIC, GRAMMARS, Grammar, Words, canonical_option, says, sort_words
from agent.policy.request import UNKNOWN, SimpleCommand

__all__ = ["Fit", "ShorthandError", "covers", "judge", "matches", "may_match", "parse_shorthand"]

_ALSO_CALLED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mkfs": ("mke2fs", "mkdosfs", "mkntfs", "mkexfatfs", "mkreiserfs", "mkudffs", "newfs", "mkfs_*", "newfs_*"),
        "node": ("nodejs",),
        "awk": ("gawk", "mawk", "nawk"),
        "vim": ("vi", "nvim", "view", "ex"),
        "nc": ("ncat", "netcat", "nc.traditional", "nc.openbsd"),
        "docker": ("podman",),
        "apt": ("apt-get",),
    }
)
_VERSIONED = frozenset(("python", "pip", "perl", "ruby", "node", "lua", "php", "gcc", "clang", "java", "tclsh"))


class ShorthandError(ValueError):
    """A shorthand that says nothing or more than one line can; `fix` is what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def judge(match: CommandMatch, command: SimpleCommand, *, home: str) -> Fit:
    """How far `match` describes `command`. `home` is the session's home directory."""
    if not any(program_fits(name, command.program) for name in match.program):
        return Fit.NO
    grammar = _grammar(command.program)
    words = sort_words(command.argv, grammar)
    answers = [Fit.YES, _options_fit(match, words, grammar), _subcommand_fit(match, words)]
    if match.operands:
        answers.append(_operands_fit(match, words, command, grammar, home))
    return min(answers)


def matches(match: CommandMatch, command: SimpleCommand, *, home: str) -> bool:
    """True where `match` describes `command` for certain."""
    return judge(match, command, home=home) is Fit.YES


def may_match(match: CommandMatch, command: SimpleCommand, *, home: str) -> bool:
    """True where it cannot be known before the command runs whether `match` describes it."""
    return judge(match, command, home=home) is Fit.MAYBE


def covers(match: CommandMatch, command: SimpleCommand, *, home: str) -> bool:
    """True where `match` describes the whole command: *every* operand fits. For exceptions, which must not let
    ``rm -r /opt/scratch /etc`` pass because one of its operands is excepted. In doubt False."""
    bare = CommandMatch(match.program, match.subcommand, match.options)
    if judge(bare, command, home=home) is not Fit.YES:
        return False
    if not match.operands:
        return True
    words = sort_words(command.argv, _grammar(command.program))
    rest = words.operands[len(match.subcommand) :]
    return bool(rest) and all(
        any(
            operand_within(pattern, word, cwd=command.cwd, home=home, glob=index in command.globs)
            for pattern in match.operands
        )
        for index, word in rest
    )


def parse_shorthand(text: str) -> CommandMatch:
    """``mkfs`` or ``dd if=/dev/zero`` as a `CommandMatch`: program, subcommand words, options, one operand.

    Raises ShorthandError.
    """
    words = text.split()
    if not words or words[0].startswith("-") or "/" in words[0] or "=" in words[0]:
        raise ShorthandError(f"{text!r} does not start with a program's name", "write a program, such as mkfs")
    if any(char in text for char in "'\"`$;|&<>(){}\\\0"):
        raise ShorthandError(f"{text!r} is shell syntax", "write {id: ..., match: {program: ..., operands: [...]}}")
    program = words[0]
    grammar = _grammar(program)
    options: list[str] = []
    subcommand: list[str] = []
    operands: list[str] = []
    for word in words[1:]:
        if word.startswith("--") and len(word) > 2:
            options.append(canonical_option(word[2:], grammar))
        elif word.startswith("-") and len(word) > 1:
            letters = [word[1:]] if grammar.single_dash else list(word[1:])
            options += [canonical_option(letter, grammar) for letter in letters]
        elif operands or any(char in word for char in "=/.~*?[") or grammar.plain:
            operands.append(word)
        else:
            subcommand.append(word)
    if len(operands) > 1:
        raise ShorthandError(
            f"{text!r} names {len(operands)} operands", "write {id: ..., match: {program: ..., operands: [...]}}"
        )
    return CommandMatch((program,), tuple(subcommand), tuple(dict.fromkeys(options)), tuple(operands))


def program_fits(name: str, program: str) -> bool:
    """True where a rule about `name` is about `program`: itself, its variants, versions and other names."""
    if name == program or program.startswith(name + "."):
        return True
    if any(char in name for char in "*?["):
        return fnmatchcase(program, name)
    if name in _VERSIONED and program.startswith(name) and not program[len(name) :].strip("0123456789.-"):
        return True
    return any(fnmatchcase(program, other) for other in _ALSO_CALLED.get(name, ()))


def _grammar(program: str) -> Grammar:
    return GRAMMARS.get(program, GENERIC)


def _options_fit(match: CommandMatch, words: Words, grammar: Grammar) -> Fit:
    if all(says(words.options, wanted, grammar) for wanted in match.options):
        return Fit.YES
    return Fit.MAYBE if words.uncertain else Fit.NO


def _subcommand_fit(match: CommandMatch, words: Words) -> Fit:
    answer = Fit.YES
    given = [word for _, word in words.operands]
    for index, wanted in enumerate(match.subcommand):
        word = given[index] if index < len(given) else None
        if word is not None and UNKNOWN in word:
            return Fit.MAYBE
        if word != wanted:
            return Fit.NO
    return answer


def _operands_fit(match: CommandMatch, words: Words, command: SimpleCommand, grammar: Grammar, home: str) -> Fit:
    recursive = any(canonical_option(option, grammar) == "recursive" for option in match.options)
    best = Fit.NO
    for index, word in words.operands[len(match.subcommand) :]:
        for pattern in match.operands:
            fit = operand_fit(
                pattern, word, cwd=command.cwd, home=home, glob=index in command.globs, recursive=recursive
            )
            best = max(best, fit)
        if best is Fit.YES:
            break
    return best
