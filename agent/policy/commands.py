"""Does a command rule's `match` describe a command? Three answers: YES, NO, and MAYBE.

Rules: every key given must hold, the weakest decides; of the entries of one key one has to fit (of `options` all, of
`without` none), and an exception's `operands` have to describe all operands (`covers`); a program is matched by meaning
(`agent.policy.program_names`); MAYBE means that it hangs on text which is known only when the command runs (a variable
from outside, an unknown directory). What a `CommandMatch` may say is written there.

Where `options` asks for ``recursive``, an operand above the pattern fits too: ``rm -r /`` deletes ``/etc/**``. Where a
redirection goes is not guessed at: it is no exec, so nothing would decide it later, and the path guard bounds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate
from functools import lru_cache

from agent.policy.credential_shapes import CREDENTIAL_WORD, holds_credential
from agent.policy.model import CommandMatch
from agent.policy.operands import PATH_MAX, Fit, normalise_operand, of_a_value, operand_fit, operand_within, text_fit
from agent.policy.options import GENERIC, GRAMMARS, Grammar, Words, canonical_option, says, sort_words, values_of
from agent.policy.path_classes import Places, class_fit, class_within, named_class
from agent.policy.path_sets import any_describes, any_meets, is_path
from agent.policy.program_names import any_fits, plain_name
from agent.policy.request import UNKNOWN, SimpleCommand
from agent.values import dataclass, replace

__all__ = ["Fit", "Places", "covers", "judge", "matches", "may_match", "redirection"]


def judge(match: CommandMatch, command: SimpleCommand, places: Places) -> Fit:
    """How far `match` describes `command`; the cheapest questions come first."""
    if match.program and not any_fits(match.program, command.program):
        return Fit.NO
    if match.code_from and not _among(match.code_from, command.code_from):
        return Fit.NO
    if match.piped_from and not _among(match.piped_from, command.piped_from):
        return Fit.NO
    answer = Fit.YES
    if match.redirects:
        answer = _redirects_fit(match, command, places)
    if match.environment and answer:
        answer = min(answer, _environment_fit(match, command))
    if answer and (match.options or match.without or match.subcommand or match.operands):
        answer = min(answer, _arguments_fit(match, command, places))
    if match.words and answer:
        answer = min(answer, max(_words_fit(match.words, command), default=Fit.NO))
    return answer


def matches(match: CommandMatch, command: SimpleCommand, places: Places) -> bool:
    """True where `match` describes `command` for certain."""
    return judge(match, command, places) is Fit.YES


def may_match(match: CommandMatch, command: SimpleCommand, places: Places) -> bool:
    """True where it cannot be known before the command runs whether `match` describes it."""
    return judge(match, command, places) is Fit.MAYBE


def covers(match: CommandMatch, command: SimpleCommand, places: Places) -> bool:
    """True where `match` describes the whole command: *every* operand fits. For exceptions, which must not let
    ``rm -r /opt/scratch /etc`` pass because one of its operands is excepted. In doubt False."""
    if judge(replace(match, operands=()), command, places) is not Fit.YES:
        return False
    if not match.operands:
        return True
    words = sort_words(command.argv, _grammar(command.program))
    rest = words.operands[len(match.subcommand) :]
    return bool(rest) and all(
        any(_within(pattern, word, command, places, glob=index in command.globs) for pattern in match.operands)
        for index, word in rest
    )


def redirection(text: str) -> tuple[bool, str] | None:
    """Of an entry of `redirects`: does it write, and the pattern of its target. None where it is no such entry."""
    operator, _, pattern = text.partition(" ")
    pattern = pattern.strip()
    return (operator == ">", pattern) if operator in ("<", ">") and pattern else None


def _grammar(program: str) -> Grammar:
    return GRAMMARS.get(program) or GRAMMARS.get(plain_name(program), GENERIC)


def _among(names: tuple[str, ...], programs: tuple[str, ...]) -> bool:
    return any(any_fits(names, program) for program in programs)


def _redirects_fit(match: CommandMatch, command: SimpleCommand, places: Places) -> Fit:
    best = Fit.NO
    for operator, target in command.redirects:
        if "&" in operator and (target == "-" or target.isdecimal()):
            continue  # a copy of a descriptor
        writes, reads = ">" in operator, "<" in operator
        for entry in match.redirects:
            wanted = redirection(entry)
            if wanted is None or not (writes if wanted[0] else reads):
                continue
            if UNKNOWN in target:
                continue
            best = max(best, _operand_fit(wanted[1], target, command, places, glob=False, recursive=False))
    return Fit.YES if best is Fit.YES else Fit.NO


def _environment_fit(match: CommandMatch, command: SimpleCommand) -> Fit:
    best = Fit.NO
    for name, value in command.assignments:
        for entry in match.environment:
            wanted, equals, pattern = entry.partition("=")
            if not fnmatchcase(name, wanted):
                continue
            best = max(best, text_fit(pattern, value, glob=False) if equals else Fit.YES)
    return best


def _words_fit(patterns: tuple[str, ...], command: SimpleCommand) -> Iterable[Fit]:
    credential = CREDENTIAL_WORD in patterns
    written = tuple(pattern for pattern in patterns if pattern != CREDENTIAL_WORD) if credential else patterns
    for word in command.argv[1:]:
        if credential and holds_credential(word):
            yield Fit.YES
        if UNKNOWN not in word and len(word) <= PATH_MAX:
            if any_describes(written, word):
                yield Fit.YES
        elif word != UNKNOWN:  # any word at all may be any word at all: that says nothing
            yield from (text_fit(pattern, word, glob=False) for pattern in written)


def _arguments_fit(match: CommandMatch, command: SimpleCommand, places: Places) -> Fit:
    words = sort_words(command.argv, _grammar(command.program))
    answer = _subcommand_fit(match, words, command, places)
    if answer and (match.options or match.without):
        answer = min(answer, _options_fit(match, words))
    if match.operands and answer:
        answer = min(answer, _operands_fit(match, words, command, places))
    return answer


def _options_fit(match: CommandMatch, words: Words) -> Fit:
    answer = min((_option_fit(entry, words) for entry in match.options), default=Fit.YES)
    ruled_out = max((_option_fit(entry, words) for entry in match.without), default=Fit.NO)
    if ruled_out is Fit.YES:
        return Fit.NO
    return min(answer, Fit.MAYBE) if ruled_out is Fit.MAYBE and not match.options else answer


def _option_fit(entry: str, words: Words) -> Fit:
    names, equals, pattern = entry.partition("=")
    best = Fit.MAYBE if words.uncertain else Fit.NO
    for name in names.split("|"):
        if equals:
            for value in values_of(words, name):
                unknown = Fit.MAYBE if UNKNOWN in value else Fit.NO
                best = max(best, unknown, *(text_fit(one, value, glob=False) for one in pattern.split("|")))
        elif says(words.options, name, words.grammar):
            return Fit.YES
    return best


def _subcommand_fit(match: CommandMatch, words: Words, command: SimpleCommand, places: Places) -> Fit:
    given = [word for _, word in words.operands]
    for index, wanted in enumerate(match.subcommand):
        word = given[index] if index < len(given) else None
        if word is not None and named_class(wanted) is not None:
            glob = words.operands[index][0] in command.globs
            fit = _operand_fit(wanted, word, command, places, glob=glob, recursive=False)
            if fit is not Fit.YES:
                return fit
            continue
        if word is not None and UNKNOWN in word:
            return Fit.MAYBE
        if word is None or not _is_one_of(word, wanted):
            return Fit.NO
    return Fit.YES


def _is_one_of(word: str, alternatives: str) -> bool:
    return _one_of(alternatives).match(word) is not None


@lru_cache(maxsize=1024)
def _one_of(alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, alternatives.split("|"))))


def _operands_fit(match: CommandMatch, words: Words, command: SimpleCommand, places: Places) -> Fit:
    recursive = any(
        canonical_option(name, words.grammar) == "recursive" for entry in match.options for name in entry.split("|")
    )
    best = Fit.NO
    sorted_out = _sorted_patterns(match.operands, places.home)
    globs = frozenset(command.globs)
    for index, word in words.operands[len(match.subcommand) :]:
        patterns = match.operands
        path = UNKNOWN if index in globs else normalise_operand(word, command.cwd, places.home)
        if path != UNKNOWN and len(path) <= PATH_MAX and UNKNOWN not in word:
            if any_meets(sorted_out.paths, path, home=places.home, recursive=recursive):
                return Fit.YES
            patterns = sorted_out.others if word.startswith(sorted_out.keys) else sorted_out.words
        for pattern in patterns:
            fit = _operand_fit(pattern, word, command, places, glob=index in globs, recursive=recursive)
            if fit is Fit.YES:
                return fit
            best = max(best, fit)
    return best


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The entries of `operands`: about `paths`, which are asked all at once; all `others`; those of the others that are
    about `words` that begin with none of `keys`."""

    paths: tuple[str, ...]
    others: tuple[str, ...]
    words: tuple[str, ...]
    keys: tuple[str, ...]


@lru_cache(maxsize=512)
def _sorted_patterns(patterns: tuple[str, ...], home: str) -> _Sorted:
    paths = tuple(pattern for pattern in patterns if named_class(pattern) is None and is_path(pattern, home))
    others = tuple(pattern for pattern in patterns if pattern not in paths)
    keys = {pattern: keyed[0] for pattern in others if (keyed := of_a_value(pattern)) is not None}
    return _Sorted(
        paths, others, tuple(pattern for pattern in others if pattern not in keys), tuple(set(keys.values()))
    )


def _operand_fit(
    pattern: str, word: str, command: SimpleCommand, places: Places, *, glob: bool, recursive: bool
) -> Fit:
    if named_class(pattern) is not None:
        return class_fit(pattern, word, cwd=command.cwd, places=places, glob=glob, recursive=recursive)
    return operand_fit(pattern, word, cwd=command.cwd, home=places.home, glob=glob, recursive=recursive)


def _within(pattern: str, word: str, command: SimpleCommand, places: Places, *, glob: bool) -> bool:
    if named_class(pattern) is not None:
        return class_within(pattern, word, cwd=command.cwd, places=places, glob=glob)
    return operand_within(pattern, word, cwd=command.cwd, home=places.home, glob=glob)
