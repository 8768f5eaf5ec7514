"""What the text that a database client is given does to the data: commands of ``<sql>``, ``<mongo>`` and ``<redis>``.

Rules: a statement is a command whose words are its own (`agent.shell.sql`); nothing runs on this machine because of it;
a line for redis-cli is read as its arguments are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from agent.policy.request import UNKNOWN
from agent.shell.pieces import Word
from agent.shell.sql import mongo_calls, statements
from agent.shell.steps import Code, Inner, Opaque, Step, split_plain

SQL: Final = "<sql>"
MONGO: Final = "<mongo>"
REDIS: Final = "<redis>"
LINES: Final = 400
"""Lines of one text for redis-cli that are read."""

type Dialect = Callable[[Word], Iterator[Step]]


def with_sql(doors: Dialect, *, mysql: bool = False) -> Dialect:
    """A client's dialect with its doors to a shell, and the statements of its text."""

    def steps(text: Word) -> Iterator[Step]:
        yield from doors(text)
        if text.text != UNKNOWN:
            for words in statements(text.text, mysql=mysql):
                yield Inner(tuple(text._replace(text=word, glob=False) for word in (SQL, *words)))

    return steps


def sql_alone(text: Word) -> Iterator[Step]:
    """A client without a door that is known here."""
    if text.text == UNKNOWN:
        yield Opaque("a database client reads statements that are not known before they run")


PASTED_VERBS: Final = frozenset(("drop", "truncate", "delete", "update", "alter", "grant", "revoke"))
"""What a pasted statement begins with, in any case."""
_SECOND: Final = frozenset(("database", "schema", "table", "from", "all", "role", "user", "index", "view"))


def pasted_sql(words: Sequence[Word]) -> Iterator[Step]:
    """A statement that stands where a shell reads it, as ``DROP TABLE x;`` pasted into the wrong window: no program has
    such a name, and whoever wrote it means the database."""
    verb = words[0].text
    if verb.lower() not in PASTED_VERBS or len(words) < 2:
        return
    if verb.isupper() or words[1].text.lower() in _SECOND:
        for found in statements(" ".join(word.text for word in words)):
            yield Inner(tuple(words[0]._replace(text=word, glob=False) for word in (SQL, *found)))


def mongo(text: Word) -> Iterator[Step]:
    """The MongoDB shell: JavaScript, and what it drops."""
    yield Code("node", text)
    for words in mongo_calls(text.text):
        yield Inner(tuple(text._replace(text=word, glob=False) for word in (MONGO, *words)))


def redis(text: Word) -> Iterator[Step]:
    """Lines of words for redis-cli."""
    if text.text == UNKNOWN:
        yield Opaque("redis-cli reads commands that are not known before they run")
        return
    for line in text.text.splitlines()[:LINES]:
        words = split_plain(text._replace(text=line, glob=False))
        if words:
            yield Inner((text._replace(text=REDIS, glob=False), *words))
