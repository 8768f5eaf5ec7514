"""SQL text to its statements, as words that a command rule can look at.

Rules: comments and quotes are taken away, words are in lower case, what stands between quotes stays one word and keeps
a ``'`` in front (it is data, except in PREPARE, EXECUTE and DO); a DELETE or UPDATE without a condition that can fail
has the word ``--all-rows`` behind it. This is no parser: what it does not understand stays in its words. Comments are
read as short as any engine reads them, so that nothing is hidden in them: nested ones end at the first end, and MySQL's
``/*! … */`` is text.

Sources: PostgreSQL manual, chapter 4.1 "Lexical Structure"; MySQL reference manual, 11.7 "Comments" and 11.1.1 "String
Literals"; SQLite "SQL As Understood By SQLite".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agent.expressions import expression
from agent.policy.request import UNKNOWN

MOST: Final = 400
"""Statements of one text that are read."""

_TOKEN: Final = expression(
    r"""
      (?P<blank>\s+ | --[^\n]* | /\*!\d* | \*/ | /\*(?!!)(?:(?!\*/).)*(?:\*/|\Z) )
    | (?P<body>\$(?P<tag>\w*)\$(?P<inside>.*?)(?:\$(?P=tag)\$|\Z))
    | (?P<string>(?P<escaped>[eE])?'(?P<text>(?:''|[^'])*)(?:'|\Z))
    | (?P<name>"(?:""|[^"])*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]\s]*\])
    | (?P<end>;|\\[gG]\w*)
    | (?P<word>(?:(?!/\*|\*/|--)[\w$@\#.*%:/+-])+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_MYSQL_STRING: Final = expression(r"'(?P<text>(?:\\.|''|[^'\\])*)(?:'|\Z)|\"(?:\\.|\"\"|[^\"\\])*(?:\"|\Z)", re.DOTALL)
_RUNS_TEXT: Final = frozenset(("prepare", "execute", "exec", "do", "call", "perform"))
_EMBEDS: Final = frozenset(("with", "begin", "if", "start", "set", "explain", "copy", "else", "declare"))
_CHANGES: Final = frozenset(("delete", "update", "drop", "truncate", "alter", "grant", "revoke"))
_ALWAYS: Final = (["true"], ["1"], ["not", "false"])


def statements(text: str, *, mysql: bool = False, depth: int = 3) -> Iterator[tuple[str, ...]]:
    """The statements of `text`, each as its words; those in the texts that a statement executes, too. `mysql`: a
    backslash escapes a quote, and ``#`` begins a comment. `depth`: texts in texts that are read."""
    for count, (words, bodies) in enumerate(_split(text, mysql)):
        if count >= MOST:
            return
        yield from _one(words)
        if depth and not _RUNS_TEXT.isdisjoint(words):
            for body in bodies:
                yield from statements(body, mysql=mysql, depth=depth - 1)


def _one(words: list[str]) -> Iterator[tuple[str, ...]]:
    """The statement, and what stands inside of it where its first word carries others."""
    if words[0] == "explain" and not {"analyze", "analyse"} & set(words[1:4]):
        return
    yield _marked(words)
    if words[0] not in _EMBEDS and words[0] not in _RUNS_TEXT:
        return
    for index, word in enumerate(words[1:], 1):
        if word in _CHANGES:
            yield _marked(list(_enclosed(words[index:])))


def _enclosed(words: list[str]) -> Iterator[str]:
    """The words up to the parenthesis that closes around them."""
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth < 0:
            return
        yield word


def _marked(words: list[str]) -> tuple[str, ...]:
    rows = words[:2] == ["delete", "from"] or (words[0] == "update" and "set" in words)
    if rows and UNKNOWN not in words:  # else an option may stand there
        condition = [word for word in words[words.index("where") + 1 :] if word not in "()"] if "where" in words else []
        same = len(condition) == 3 and condition[1] == "=" and condition[0] == condition[2]
        if not condition or same or condition in _ALWAYS:
            return (*words, "--all-rows")
    return tuple(words)


def _split(text: str, mysql: bool) -> Iterator[tuple[list[str], list[str]]]:
    """(words, the texts in quotes) of each statement."""
    words: list[str] = []
    bodies: list[str] = []
    for token in _tokens(text, mysql):
        if token is None:
            if words:
                yield words, bodies
            words, bodies = [], []
        else:
            word, body = token
            words.append(word)
            bodies += [] if body is None else [body]
    if words:
        yield words, bodies


def _tokens(text: str, mysql: bool) -> Iterator[tuple[str, str | None] | None]:
    """(word, what stood in its quotes); None ends a statement."""
    position = 0
    while position < len(text):
        if mysql and text[position] == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        if mysql and text[position] in "'\"":
            quoted = _MYSQL_STRING.match(text, position)
            if quoted is not None:
                inside = quoted[0][1:-1]
                yield (f"'{inside}", inside)
                position = quoted.end()
                continue
        found = _TOKEN.match(text, position)
        if found is None:  # pragma: no cover (the last alternative fits any character)
            return
        position = found.end()
        if found["end"]:
            yield None
        elif found["body"] is not None:
            yield (f"'{found['inside']}", found["inside"])
        elif found["string"] is not None:
            inside = found["text"].replace("''", "'")
            yield (f"'{inside}", inside)
        elif found["name"] is not None:
            yield (found["name"].strip('"`[]').lower() or '""', None)
        elif found["word"] is not None and found["word"] != ",":
            yield (found["word"].lower(), None)


_MONGO: Final = expression(
    r"""\b(?P<name>dropDatabase|dropCollection|drop|dropIndexes|dropUser|dropAllUsersFromDatabase|deleteMany|deleteOne|remove
      |updateMany|renameCollection|shutdownServer|createUser|grantRolesToUser|fsyncLock|dropRole|dropAllRolesFromDatabase)
      ["'\]]*\s*\(\s*(?P<filter>\{\s*\})?""",
    re.VERBOSE,
)


def mongo_calls(text: str) -> Iterator[tuple[str, ...]]:
    """The methods by which a script of the MongoDB shell drops, deletes and administers, in lower case; one without a
    filter (``{}``, or nothing) has the word ``--all-rows`` behind it."""
    for found in _MONGO.finditer(text):
        everything = found["filter"] is not None or text[found.end() : found.end() + 1] == ")"
        yield (found["name"].lower(), "--all-rows") if everything else (found["name"].lower(),)
