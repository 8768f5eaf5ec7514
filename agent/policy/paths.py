"""Paths of files: which tree covers which, what is protected, what is always there and what never is.

Rules kept here: pure text (whoever asks has resolved the symlinks); a path that is not absolute and normalised is
covered by nothing; a tree covers itself and everything below it, by whole components.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from agent.policy.globs import ANY_DEPTH, match_prefix, may_contain

DEVICES: Final = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
)
"""Granted to every session for reading and writing: programs do not work without them."""

PROC: Final = "/proc"
"""Granted for reading as a whole; /proc/self alone cannot be, because Landlock binds it to one process."""

AGENT_FILES: Final = ("/etc/parhelia", "/run/parhelia", "/vol/parhelia/audit")
"""The agent's own places where nothing else is configured: never granted, whatever the policy says."""

HOOK_SETTINGS: Final = ("/etc/claude-code", "/etc/codex", "/etc/gemini-cli", "/etc/cursor")
"""Where the hook is registered: the session's agents read it, nobody in the session writes it."""

POINTERS: Final = frozenset({".git"})
"""A file of this name (of a work tree, a submodule) says where git finds its settings: gitrepository-layout(5). Git
removes and moves it with its work tree, so it is watched, and not held; a directory of this name is a repository."""

IN_HOME: Final = "~/"
"""How a protected or watched place of the session's own home is written."""

PUBLIC: Final = "public"
"""The part of a run directory (``/run/parhelia/<session>/public``) that the session may read: CA bundle, hook."""


def is_normal(path: str) -> bool:
    """True for an absolute path without empty, ``.`` or ``..`` components, without trailing slash and without NUL."""
    if path == "/":
        return True
    return path.startswith("/") and "\0" not in path and not {"", ".", ".."} & set(path[1:].split("/"))


def covers(root: str, path: str) -> bool:
    """Is `path` the tree's root or below it?"""
    if root == "/":
        return path.startswith("/")
    return path == root or path.startswith(root + "/")


def below(root: str, path: str) -> bool:
    """Is `path` strictly below the tree's root?"""
    return path != root and covers(root, path)


def covered(roots: Iterable[str], path: str) -> bool:
    """Does any of the trees cover the path?"""
    return any(covers(root, path) for root in roots)


def outermost(roots: Iterable[str]) -> tuple[str, ...]:
    """The same trees without those that lie in another one, sorted."""
    kept: list[str] = []
    for root in sorted(set(roots), key=lambda text: (text.count("/") if text != "/" else 0, text)):
        if not covered(kept, root):
            kept.append(root)
    return tuple(sorted(kept))


def intersection(left: Iterable[str], right: Iterable[str]) -> tuple[str, ...]:
    """The trees that lie in both sets of trees."""
    lefts, rights = tuple(left), tuple(right)
    inner = [root for root in lefts if covered(rights, root)] + [root for root in rights if covered(lefts, root)]
    return outermost(inner)


def protects(pattern: str, path: str, home: str = "") -> bool:
    """Is `path` the protected place or below it? A pattern without leading slash holds at any depth; one that starts
    with ``~/`` below `home`, or where that is not known at any depth."""
    return match_prefix(pieces(pattern, home), path[1:].split("/"))


def holds_protected(pattern: str, path: str, home: str = "") -> bool:
    """Would removing the directory `path` take a protected place with it, by the pattern's own names?"""
    return may_contain(pieces(pattern, home), path[1:].split("/"))


def may_protect(patterns: tuple[str, ...], path: str, home: str = "") -> bool:
    """Might one of these patterns protect `path`? One search for all of them, and never wrongly False: nearly every
    path that is asked about is none."""
    return _any_of(patterns, home).match(path) is not None


def may_hold_protected(patterns: tuple[str, ...], path: str, home: str = "") -> bool:
    """The same for `holds_protected`, by the last two names of `path` alone."""
    return _holders(patterns, home).fullmatch(last_two(path)) is not None


def last_two(path: str) -> str:
    """The last two names of an absolute path, and what `tails` is asked for (the first is empty at the root)."""
    return path[path.rfind("/", 0, path.rfind("/")) + 1 :]


@lru_cache(maxsize=64)
def _holders(patterns: tuple[str, ...], home: str) -> re.Pattern[str]:
    named = [[part for part in pieces(pattern, home) if part != ANY_DEPTH][:-1] for pattern in patterns]
    return tails(named)


def tails(spelled: Iterable[Sequence[str]]) -> re.Pattern[str]:
    """An expression that the last two names of whatever ends in a segment of one of these patterns meet. For a segment
    that is a mere ``*`` the one before it tells; without one it is met by anything."""
    pairs = {pair for parts in spelled for pair in pairwise([ANY_DEPTH, *parts]) if pair[1] != ANY_DEPTH}
    by_above = {_word(above) for above, part in pairs if part == "*" and above != ANY_DEPTH}
    alone = {_word(part) for above, part in pairs if part != "*" or above == ANY_DEPTH}
    forms = [f"[^/]*/(?:{'|'.join(sorted(alone))})"] * bool(alone) + [f"{above}/[^/]*" for above in sorted(by_above)]
    return re.compile("|".join(forms) or "(?!)", re.S)


def _word(segment: str) -> str:
    return "[^/]*".join(map(re.escape, segment.split("*")))


@lru_cache(maxsize=64)
def _any_of(patterns: tuple[str, ...], home: str) -> re.Pattern[str]:
    """(?!) matches nothing. What may lie anywhere is looked for once at each depth, not once for each pattern."""
    spelled = [pieces(pattern, home) for pattern in patterns]
    anchored = [f"/{_spelled(parts)}" for parts in spelled if parts[0] != ANY_DEPTH]
    anywhere = [_spelled(parts[1:]) for parts in spelled if parts[0] == ANY_DEPTH]
    if anywhere:
        anchored.append(f".*/(?:{'|'.join(anywhere)})")
    return re.compile(f"(?:{'|'.join(anchored) or '(?!)'})(?:/|\\Z)", re.S)


def _spelled(parts: list[str]) -> str:
    """An expression that is met wherever the segments are, and at times where they are not (``**`` is anything)."""
    while parts and parts[-1] == ANY_DEPTH:
        parts = parts[:-1]
    words = [".*" if part == ANY_DEPTH else _word(part) for part in parts]
    return "/".join(words).replace("/.*/", "/(?:.*/)?")


def pieces(pattern: str, home: str = "") -> list[str]:
    """The segments of a protected or watched place, for `agent.policy.globs`."""
    if pattern.startswith(IN_HOME):
        known = is_normal(home) and home != "/"
        pattern = home + pattern[1:] if known else pattern.removeprefix(IN_HOME)
    if pattern.startswith("/"):
        return pattern[1:].split("/")
    parts = pattern.split("/")
    return parts if parts[0] == ANY_DEPTH else [ANY_DEPTH, *parts]
