"""Options as a program reads them: bundled, abbreviated, with values, mixed with operands, ended by ``--``.

Rules: GNU getopt_long(3) is the model (options and operands in any order, unambiguous abbreviations of long options); a
program that is not in the table is read without option values, so that its operands are more rather than fewer; a word
with an unknown part may be any option; ``--no-x`` and ``--x=false`` take ``--x`` back where the program is known; a
bare ``--`` with words behind it counts as the option ``double-dash``.

Sources: getopt_long(3); git's parse-options API; pflag's and Go flag's package documentation; argparse's.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from agent.policy.grammar import GENERIC, Grammar
from agent.policy.grammars import GRAMMARS
from agent.policy.request import UNKNOWN
from agent.values import dataclass, field

__all__ = ["GENERIC", "GRAMMARS", "Grammar", "Words", "canonical_option", "says", "sort_words", "values_of"]

_FALSE = frozenset(("false", "f", "0", "no", "none", "off"))


@dataclass(frozen=True, slots=True)
class Words:
    """The words after the program, sorted out. `operands` are (position in argv, word). `values` are (option, value),
    in order; where it is not known whether an option takes one, the word behind it is both an operand and its value.
    `uncertain`: some word may be an option that cannot be known beforehand. `grammar`: what the last subcommand is read
    by, which says how its options are spelled."""

    options: frozenset[str]
    operands: tuple[tuple[int, str], ...]
    uncertain: bool
    values: tuple[tuple[str, str], ...] = ()
    grammar: Grammar = GENERIC


@lru_cache(maxsize=8)  # every rule about a program asks anew
def sort_words(argv: tuple[str, ...], grammar: Grammar) -> Words:
    """Tell options from operands."""
    return _Reader(argv, grammar).read()


def says(options: frozenset[str], wanted: str, grammar: Grammar) -> bool:
    """Is the option `wanted` (a long name, a letter, or a semantic name of the grammar) among `options`?"""
    return not options.isdisjoint(_spellings(wanted, grammar))


def values_of(words: Words, wanted: str) -> tuple[str, ...]:
    """The values given to the option `wanted`, in order, whichever way it was spelled."""
    spelled = _spellings(wanted, words.grammar)
    return tuple(value for name, value in words.values if name in spelled)


def canonical_option(word: str, grammar: Grammar) -> str:
    """The semantic name that `word` (a letter or long name) has for this program, or the word itself.

    A letter of a program that is not in the table has no meaning beyond itself.
    """
    if not grammar.known:
        return word
    return next((name for name, spelled in grammar.means.items() if word in spelled), word)


@lru_cache(maxsize=4096)
def _spellings(wanted: str, grammar: Grammar) -> frozenset[str]:
    name = wanted.lstrip("-")
    return grammar.means.get(canonical_option(name, grammar), frozenset()) | {name}


@dataclass(slots=True)
class _Reader:
    """One pass over a command's words."""

    argv: Sequence[str]
    grammar: Grammar
    options: set[str] = field(default_factory=set)
    values: list[tuple[str, str]] = field(default_factory=list)
    operands: list[tuple[int, str]] = field(default_factory=list)
    uncertain: bool = False
    ended: bool = False

    def read(self) -> Words:
        self.ended = self.grammar.plain
        self.operands += [(0, word) for word in self.grammar.stands_for]
        subcommands = bool(self.grammar.under or self.grammar.skipped)
        position = 1
        while position < len(self.argv):
            word = self.argv[position]
            if self.ended or word == "-" or not word.startswith(("-", UNKNOWN)):
                subcommands = self._operand(position, word, subcommands)
            elif word == "--":
                if not subcommands:
                    self.ended = True
                    self.options |= {"double-dash"} if position + 1 < len(self.argv) else set()
            elif word.startswith(UNKNOWN):
                self.uncertain = True
                self.operands.append((position, word))
            else:
                position += self._option(word, self.argv[position + 1 : position + 2])
            position += 1
        if self.grammar.script and self.options.isdisjoint(self.grammar.script):
            del self.operands[:1]
        return Words(frozenset(self.options), tuple(self.operands), self.uncertain, tuple(self.values), self.grammar)

    def _operand(self, position: int, word: str, subcommands: bool) -> bool:
        """Take an operand; True where the next one may be a subcommand too."""
        if subcommands and any(fnmatchcase(word, pattern) for pattern in self.grammar.skipped):
            return True
        if subcommands:
            inner = self.grammar.under.get(word)
            self.grammar = inner or self.grammar
            subcommands = inner is not None and bool(inner.under or inner.skipped)
        else:
            self.ended = self.ended or self.grammar.first
        self.operands.append((position, word.lower() if self.grammar.lower else word))
        return subcommands

    def _option(self, word: str, following: Sequence[str]) -> int:
        """Take the options of one word; 1 where the next word is the value of the last, else 0."""
        if word.startswith("--") or self.grammar.single_dash:
            return self._long(word.lstrip("-"), following)
        for index, letter in enumerate(word[1:], 1):
            if letter == UNKNOWN:
                self.uncertain = True
                return 0
            self._say(letter)
            rest = word[index + 1 :]
            if rest.startswith("="):
                return self._value(letter, rest[1:])
            if letter in self.grammar.valued:
                return self._value(letter, rest) if rest else self._next(letter, following)
            if not rest:
                self._perhaps(letter, following)
        if len(word) > 2 and not self.grammar.known:
            self._value(word[1], word[2:])
        return 0

    def _long(self, text: str, following: Sequence[str]) -> int:
        name, equals, value = text.partition("=")
        if UNKNOWN in name:
            self.uncertain = True
        name = _completed(name, self.grammar)
        if equals:
            if value.lower() in _FALSE and name not in self.grammar.valued and self.grammar.known:
                self._take_back(name)
            else:
                self._say(name)
            return self._value(name, value)
        self._say(name)
        if name in self.grammar.valued:
            return self._next(name, following)
        self._perhaps(name, following)
        return 0

    def _value(self, name: str, value: str) -> int:
        self.values.append((name, value))
        return 0

    def _next(self, name: str, following: Sequence[str]) -> int:
        if following:
            self.uncertain |= following[0] == UNKNOWN  # any number of words
            self.values.append((name, following[0]))
        return 1

    def _perhaps(self, name: str, following: Sequence[str]) -> None:
        """An option that the grammar does not speak of may take a value."""
        listed = name in self.grammar.longs or any(name in spelled for spelled in self.grammar.means.values())
        if following and not (listed and self.grammar.known):
            self.values.append((name, following[0]))

    def _say(self, name: str) -> None:
        if self.grammar.known:
            self._take_back(name[3:] if name.startswith("no-") else f"no-{name}")
        self.options.add(name)

    def _take_back(self, name: str) -> None:
        spelled = _spellings(name, self.grammar)
        if not self.options.isdisjoint(spelled):
            self.options -= spelled
            self.values = [(given, value) for given, value in self.values if given not in spelled]


def _completed(name: str, grammar: Grammar) -> str:
    """The long name that `name` abbreviates. Of several the shortest: the program would refuse it, or know better."""
    if grammar.single_dash or (len(name) < 2 and not grammar.longs):
        return name
    known = grammar.longs or {long for spelled in grammar.means.values() for long in spelled}
    if not name or name in known:
        return name
    found = sorted((len(long), long) for long in known if len(long) > 1 and long.startswith(name))
    if found:
        return found[0][1]
    return f"no-{_completed(name[3:], grammar)}" if name.startswith("no-") and len(name) > 3 else name
