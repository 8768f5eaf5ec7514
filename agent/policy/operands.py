"""Operands: one spelling per path, and whether a pattern of the policy meets what a command names.

Rules: everything is text (no file system, so symlinks stay as they are: the exec ring sees resolved paths); a word that
the shell has still to expand meets a pattern where any of its expansions does; a word with an unknown part *may* meet
every path pattern, because the unknown part may hold ``..``.

Patterns: ``*`` and ``?`` stay inside one path segment, ``**`` crosses them, ``X/**`` includes X itself, ``**/x`` is
x at any depth; a leading ``~`` is the session's home. A pattern that is no path (``--hard``, ``main``) is compared with
the word as given; ``key=/path`` compares the value as a path.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from agent.expressions import expression
from agent.policy.request import UNKNOWN

PATH_MAX = 4096  # linux/limits.h

_KEYED = expression(r"(-{0,2}[A-Za-z_][A-Za-z0-9_-]*=)(.*)", re.DOTALL)
_SPELLED_OTHERWISE = expression(r"/(?=/|$)|/\.\.?(?=/|$)")
_PROC_ROOT = expression(r"/proc/[^/]+(?:/task/[^/]+)?/(root|cwd)(?=/|$)")
_ANY, _ONE, _STAR, _GLOBSTAR = "any", "one", "star", "globstar"


class Fit(IntEnum):
    """How far a rule applies: MAYBE where it depends on what cannot be known before the command runs."""

    NO = 0
    MAYBE = 1
    YES = 2


@lru_cache(maxsize=64)  # the rules about one command ask one after the other
def normalise_operand(word: str, cwd: str | None, home: str) -> str:
    """`word` as an absolute path without ``.``, ``..``, ``//``, ``/proc/*/root``; UNKNOWN where it is not known."""
    if word == "~" or word.startswith("~/"):
        word = home + word[1:]
    if not word.startswith("/"):
        if cwd is None:
            return UNKNOWN
        word = f"{cwd}/{word}"
    if UNKNOWN in word:
        return UNKNOWN
    path = _collapse(word)
    if not path.startswith("/proc/"):
        return path
    for _ in range(8):
        found = _PROC_ROOT.match(path)
        if found is None:
            break
        if found[1] == "cwd":
            if cwd is None:
                return UNKNOWN
            path = _collapse(cwd + path[found.end() :])
        else:
            path = _collapse(path[found.end() :] or "/")
    return path


def operand_fit(pattern: str, word: str, *, cwd: str | None, home: str, glob: bool, recursive: bool) -> Fit:
    """Does `pattern` meet `word`? `glob`: the word is still to be expanded. `recursive`: the command takes whole trees,
    so that a word above what the pattern names meets it too."""
    keyed = of_a_value(pattern)
    if keyed is not None:
        return _keyed_fit(*keyed, word, cwd=cwd, home=home, glob=glob)
    pattern = rooted(pattern, home)
    if not pattern.startswith("/"):
        return text_fit(pattern, word, glob)
    path = normalise_operand(word, cwd, home)
    if path == UNKNOWN or len(path) > PATH_MAX:
        return Fit.MAYBE
    if _meets(pattern, path, glob):
        return Fit.YES
    if recursive and _is_above(path, pattern, glob):
        return Fit.YES
    return Fit.NO


@lru_cache(maxsize=512)
def of_a_value(pattern: str) -> tuple[str, str] | None:
    """Key (with its ``=``) and path of a pattern ``key=/path``, None for any other."""
    keyed = _KEYED.fullmatch(pattern)
    return (keyed[1], keyed[2]) if keyed is not None and keyed[2].startswith(("/", "~")) else None


def rooted(pattern: str, home: str) -> str:
    """`pattern` with the home and the root spelled out, as an absolute one where it is about paths."""
    if pattern.startswith("~"):
        return home + pattern[1:]
    return f"/{pattern}" if pattern.startswith("**/") else pattern


def operand_within(pattern: str, word: str, *, cwd: str | None, home: str, glob: bool) -> bool:
    """True where everything `word` can stand for is named by `pattern` (for exceptions: in doubt, False)."""
    if UNKNOWN in word or "**" in word or (glob and re.search(r"[?\[]", pattern)):
        return False
    return operand_fit(pattern, word, cwd=cwd, home=home, glob=False, recursive=False) is Fit.YES


def _keyed_fit(key: str, pattern: str, word: str, *, cwd: str | None, home: str, glob: bool) -> Fit:
    if word.startswith(key):
        return operand_fit(pattern, word[len(key) :], cwd=cwd, home=home, glob=glob, recursive=False)
    return Fit.MAYBE if UNKNOWN in word and _could_start(word, key) else Fit.NO


def _could_start(word: str, key: str) -> bool:
    known = word[: word.index(UNKNOWN)]
    return key.startswith(known) or known.startswith(key)


def text_fit(pattern: str, word: str, glob: bool) -> Fit:
    """Does `pattern` meet `word` as it is written, path or not?"""
    if len(word) > PATH_MAX:
        return Fit.MAYBE
    if UNKNOWN in word:
        return Fit.MAYBE if _meets(pattern, word, glob) else Fit.NO
    return Fit.YES if _meets(pattern, word, glob) else Fit.NO


def _collapse(path: str) -> str:
    if path.startswith("/") and _SPELLED_OTHERWISE.search(path) is None:
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _is_above(path: str, pattern: str, glob: bool) -> bool:
    """True where `path` is a directory that holds what `pattern` names."""
    return path == "/" or any(_meets(holder, path, glob) for holder in holders(pattern))


@lru_cache(maxsize=512)
def holders(pattern: str) -> tuple[str, ...]:
    """The directories above what `pattern` names, as far as it is spelled out; without ``/``."""
    base = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    fixed = base if base == pattern else base.rpartition("/")[0]
    parts = [part for part in fixed.split("/") if part]
    found = ["/" + "/".join(parts[: end + 1]) for end in range(len(parts))]
    if fixed == pattern and found:
        found.pop()
    return tuple(found)


def _meets(pattern: str, subject: str, glob: bool) -> bool:
    plain = not glob and UNKNOWN not in subject
    if plain:
        return any(expression.fullmatch(subject) for expression in compiled(pattern))
    subjects = [_subject_tokens(spelled, glob) for spelled in (_alternatives(subject) if glob else (subject,))]
    return any(
        _intersect(_pattern_tokens(alternative), tokens)
        for alternative in _alternatives(pattern)
        for tokens in subjects
    )


@lru_cache(maxsize=512)
def compiled(pattern: str) -> tuple[re.Pattern[str], ...]:
    """The expressions of which one matches whatever `pattern` meets."""
    spelled = {_ANY: ".*", _GLOBSTAR: ".*", _STAR: "[^/]*", _ONE: "[^/]"}
    expressions = []
    for alternative in _alternatives(pattern):
        tokens = _pattern_tokens(alternative)
        expressions.append(
            re.compile("".join(spelled.get(t, t if t[0] == "[" and len(t) > 1 else re.escape(t)) for t in tokens), re.S)
        )
    return tuple(expressions)


@lru_cache(maxsize=512)
def _alternatives(pattern: str) -> tuple[str, ...]:
    """`pattern` with its optional parts (``X/**``, ``**/``) spelled out."""
    found = [pattern]
    if pattern.endswith("/**") and pattern != "/**":
        found.append(pattern[:-3])
    for entry in tuple(found):
        if "/**/" in entry:
            found.append(entry.replace("/**/", "/", 1))
    return tuple(found)


@lru_cache(maxsize=512)
def _pattern_tokens(pattern: str) -> tuple[str, ...]:
    """One token per literal character, wildcard or ``[class]`` (a class is kept as a regular expression)."""
    tokens: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if pattern.startswith("**", position):
            tokens.append(_GLOBSTAR)
            position += 2
            continue
        end = pattern.find("]", position + 2) if char == "[" else -1
        if end > 0:
            body = pattern[position + 1 : end]
            negated = body.startswith("!")
            inner = re.sub(r"([\\\[\]^])", r"\\\1", body[1:] if negated else body)
            tokens.append(_class(f"[{'^' if negated else ''}{inner}]"))
            position = end + 1
            continue
        tokens.append({"*": _STAR, "?": _ONE}.get(char, char))
        position += 1
    return tuple(tokens)


def _class(expression: str) -> str:
    """A ``[…]`` that is no regular expression (``[z-a]``) stands for any one character: rather more than less."""
    try:
        re.compile(expression)
    except re.error:
        return _ONE
    return expression


def _subject_tokens(subject: str, glob: bool) -> tuple[str, ...]:
    parts = re.split(f"({UNKNOWN})", subject)
    tokens: list[str] = []
    for part in parts:
        if part == UNKNOWN:
            tokens.append(_ANY)
        else:
            tokens += _pattern_tokens(part) if glob else part
    return tuple(_ONE if token[0] == "[" and len(token) > 1 else token for token in tokens)


_REPEATED = (_ANY, _GLOBSTAR, _STAR)


def _intersect(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """True where some text is described by both. A walk over pairs of positions, each visited once."""
    seen: set[tuple[int, int]] = set()
    pending = [(0, 0)]
    while pending:
        pair = pending.pop()
        if pair in seen:
            continue
        seen.add(pair)
        i, j = pair
        if i == len(left) and j == len(right):
            return True
        a = left[i] if i < len(left) else None
        b = right[j] if j < len(right) else None
        if a in _REPEATED:
            pending.append((i + 1, j))
        if b in _REPEATED:
            pending.append((i, j + 1))
        if a is None or b is None or not _share_a_character(a, b):
            continue
        pending.append((i if a in _REPEATED else i + 1, j if b in _REPEATED else j + 1))
    return False


def _share_a_character(a: str, b: str) -> bool:
    within_segment = (_STAR, _ONE)
    if a in (_ANY, _GLOBSTAR) or b in (_ANY, _GLOBSTAR):
        return True
    if a in within_segment:
        return b != "/"
    if b in within_segment:
        return a != "/"
    if len(a) > 1 or len(b) > 1:
        return re.fullmatch(a if len(a) > 1 else re.escape(a), b) is not None if len(b) == 1 else True
    return a == b
