"""Options as a program reads them: bundled, abbreviated, with values, mixed with operands, ended by ``--``.

Rules: GNU getopt_long(3) is the model (options and operands in any order, unambiguous abbreviations of long options); a
program that is not in the table is read without option values, so that its operands are more rather than fewer; a word
with an unknown part may be any option.

Sources: rm(1), chmod(1), cp(1), git(1), docker(1), kubectl(1), dd(1), find(1) and their ``--help``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agent.policy.request import UNKNOWN


@dataclass(frozen=True, slots=True)
class Grammar:
    """How one program reads its words.

    `valued`: short letters and long names that take a value. `longs`: all long names, where abbreviations are resolved.
    `means`: semantic option name -> the letters and long names that say it. `single_dash`: ``-name`` is a long option.
    `plain`: there are no options, every word is an operand.
    """

    valued: frozenset[str] = frozenset()
    longs: tuple[str, ...] = ()
    means: Mapping[str, frozenset[str]] = MappingProxyType({})
    single_dash: bool = False
    plain: bool = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _means(**given: str) -> Mapping[str, frozenset[str]]:
    return MappingProxyType({name.replace("_", "-"): _names(text) for name, text in given.items()})


_GENERIC_MEANS = _means(recursive="r R recursive", force="f force", quiet="q quiet", verbose="v verbose")
GENERIC = Grammar(means=_GENERIC_MEANS)

_RM_LONGS = "force interactive one-file-system no-preserve-root preserve-root recursive dir verbose help version"
_RM = Grammar(
    longs=tuple(_RM_LONGS.split()),
    means=_means(recursive="r R recursive", force="f force", interactive="i I interactive", dir="d dir"),
)
_TREE = Grammar(
    valued=_names("from reference"),
    longs=(
        "changes",
        "dereference",
        "no-dereference",
        "from",
        "no-preserve-root",
        "preserve-root",
        "silent",
        "quiet",
        "reference",
        "recursive",
        "verbose",
        "help",
        "version",
    ),
    means=_means(recursive="R recursive", quiet="f silent quiet", verbose="v verbose"),
)
_CP = Grammar(
    valued=_names("t target-directory S suffix"), means=_means(recursive="r R recursive a archive", force="f force")
)
_GIT = Grammar(
    valued=_names("C c git-dir work-tree namespace exec-path config-env super-prefix attr-source"),
    means=_means(force="f force", delete="d D delete", recursive="r", hard="hard"),
)
_DOCKER = Grammar(valued=_names("H host c context config l log-level tlscacert tlscert tlskey"), means=_GENERIC_MEANS)
_KUBECTL = Grammar(
    valued=_names("n namespace s server context cluster user kubeconfig token as as-group"), means=_GENERIC_MEANS
)
_APT = Grammar(valued=_names("o option c config-file t target-release"), means=_means(yes="y yes assume-yes"))
_LS = Grammar(means=_means(recursive="R recursive", all="a A all"))

GRAMMARS: Mapping[str, Grammar] = MappingProxyType(
    {
        "rm": _RM,
        "chmod": _TREE,
        "chown": _TREE,
        "chgrp": _TREE,
        "cp": _CP,
        "git": _GIT,
        "docker": _DOCKER,
        "podman": _DOCKER,
        "kubectl": _KUBECTL,
        "apt": _APT,
        "apt-get": _APT,
        "ls": _LS,
        "dd": Grammar(plain=True),
        "find": Grammar(single_dash=True),
        "terraform": Grammar(single_dash=True),
        "openssl": Grammar(single_dash=True),
        "java": Grammar(single_dash=True),
    }
)


@dataclass(frozen=True, slots=True)
class Words:
    """The words after the program, sorted out. `operands` are (position in argv, word). `uncertain`: some word may be
    an option that cannot be known beforehand. `values` are (option, value); where it is not known whether an option
    takes one, the word behind it is both an operand and its value."""

    options: frozenset[str]
    operands: tuple[tuple[int, str], ...]
    uncertain: bool
    values: tuple[tuple[str, str], ...] = ()


def sort_words(argv: Sequence[str], grammar: Grammar) -> Words:
    """Tell options from operands."""
    options: set[str] = set()
    operands: list[tuple[int, str]] = []
    values: list[tuple[str, str]] = []
    uncertain = False
    position, ended = 1, grammar.plain
    while position < len(argv):
        word = argv[position]
        if ended or word == "-" or not word.startswith(("-", UNKNOWN)):
            operands.append((position, word))
        elif word == "--":
            ended = True
        elif word.startswith(UNKNOWN):
            uncertain = True
            operands.append((position, word))
        else:
            uncertain |= UNKNOWN in word
            following = argv[position + 1] if position + 1 < len(argv) else ""
            position += _read_option(word, following, grammar, options, values)
        position += 1
    return Words(frozenset(options), tuple(operands), uncertain, tuple(values))


def says(options: frozenset[str], wanted: str, grammar: Grammar) -> bool:
    """Is the option `wanted` (a long name, a letter, or a semantic name of the grammar) among `options`?"""
    wanted = wanted.lstrip("-")
    spelled = grammar.means.get(canonical_option(wanted, grammar), frozenset((wanted,)))
    return not options.isdisjoint(spelled) or wanted in options


def canonical_option(word: str, grammar: Grammar) -> str:
    """The semantic name that `word` (a letter or long name) has for this program, or the word itself.

    A letter of a program that is not in the table has no meaning beyond itself.
    """
    if grammar.means is _GENERIC_MEANS:
        return word
    return next((name for name, spelled in grammar.means.items() if word in spelled), word)


def _read_option(word: str, following: str, grammar: Grammar, options: set[str], values: list[tuple[str, str]]) -> int:
    """Record the options of one word, and their values; 1 where `following` is the value of the last, else 0."""
    if word.startswith("--") or grammar.single_dash:
        name, equals, value = word.lstrip("-").partition("=")
        name = _completed(name, grammar)
        options.add(name)
        values.append((name, value if equals else following))
        return int(not equals and name in grammar.valued)
    for index, letter in enumerate(word[1:], 1):
        options.add(letter)
        rest = word[index + 1 :]
        if letter in grammar.valued:
            values.append((letter, rest or following))
            return int(not rest)
        if not rest:
            values.append((letter, following))
    if len(word) > 2 and not grammar.valued:
        values.append((word[1], word[2:]))
    return 0


def _completed(name: str, grammar: Grammar) -> str:
    if not name or name in grammar.longs:
        return name
    if grammar.longs:
        found = [long for long in grammar.longs if long.startswith(name)]
        return found[0] if len(found) == 1 else name
    known = {spelled for names in grammar.means.values() for spelled in names if len(spelled) > 1}
    found = [long for long in known if long.startswith(name)]
    return found[0] if len(found) == 1 and len(name) > 1 else name
