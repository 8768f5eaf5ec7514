"""How one program reads its words: which options take a value, how they are spelled, what its subcommands change.

Rules: a grammar is a value; a subcommand has a grammar of its own, and takes over what its program accepts everywhere
(`family`); what is not listed is read without a value, so that operands are more rather than fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.values import dataclass, replace

NOTHING: Mapping[str, frozenset[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """How one program, or one subcommand, reads its words.

    `valued`: short letters and long names that take a value. `longs`: all long names, where abbreviations are resolved.
    `means`: semantic option name -> the letters and long names that say it. `single_dash`: ``-name`` is a long option.
    `plain`: there are no options, every word is an operand. `lower`: upper and lower case of operands are one.
    `first`: options end at the first operand. `script`: without one of these options the first operand is a pattern or
    a program text (grep, sed, awk), no path, and no operand here. `under`: the grammar behind each subcommand.
    `skipped`: globs of operands that say nothing in front of a subcommand (``cargo +nightly``, ``docker container``).
    `stands_for`: the operands that the program's name says (``docker-compose`` is ``docker compose``). `known`: False
    for programs in no table.
    """

    valued: frozenset[str] = frozenset()
    longs: tuple[str, ...] = ()
    means: Mapping[str, frozenset[str]] = NOTHING
    single_dash: bool = False
    plain: bool = False
    lower: bool = False
    first: bool = False
    script: frozenset[str] = frozenset()
    under: Mapping[str, Grammar] = MappingProxyType({})
    skipped: tuple[str, ...] = ()
    stands_for: tuple[str, ...] = ()
    known: bool = True


def names(text: str) -> frozenset[str]:
    """A set of option names from words."""
    return frozenset(text.split())


def means(**given: str) -> Mapping[str, frozenset[str]]:
    """Semantic names (``dry_run`` for ``dry-run``) with the spellings that say them."""
    return MappingProxyType({name.replace("_", "-"): names(text) for name, text in given.items()})


def sub(valued: str = "", longs: str = "", *, lower: bool = False, skipped: str = "", **meant: str) -> Grammar:
    """One subcommand's grammar: letters and long names that take a value, all long names, semantic names."""
    return Grammar(names(valued), tuple(longs.split()), means(**meant), lower=lower, skipped=tuple(skipped.split()))


def level(under: Mapping[str, Grammar], valued: str = "", **meant: str) -> Grammar:
    """A subcommand with subcommands of its own. A key may name several, separated by spaces."""
    return Grammar(names(valued), (), means(**meant), under=_spread(under))


def family(grammar: Grammar, under: Mapping[str, Grammar]) -> Grammar:
    """`grammar` with these subcommands, all of which take over its values and semantic names.

    A subcommand that is not listed is read as the program itself is.
    """
    spread = {name: _inherit(grammar, inner) for name, inner in _spread(under).items()}
    return replace(grammar, under=MappingProxyType(spread))


def _spread(under: Mapping[str, Grammar]) -> Mapping[str, Grammar]:
    return MappingProxyType({name: grammar for keys, grammar in under.items() for name in keys.split()})


def _inherit(outer: Grammar, inner: Grammar) -> Grammar:
    return replace(
        inner,
        valued=outer.valued | inner.valued,
        means=MappingProxyType({**outer.means, **inner.means}),
        single_dash=outer.single_dash or inner.single_dash,
        lower=outer.lower or inner.lower,
        under=MappingProxyType({name: _inherit(outer, deeper) for name, deeper in inner.under.items()}),
    )


GENERIC = Grammar(
    means=means(recursive="r R recursive", force="f force", quiet="q quiet", verbose="v verbose"), known=False
)
"""Programs that are in no table. Their letters have no meaning beyond themselves, except where a rule asks for one of
these names."""
