"""What is watched: areas of the file system, each with the reason for which a change in it is told."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from agent.policy.watched import Patterns
from agent.record.event import Integrity
from agent.values import dataclass

EVERYTHING: Final = Patterns(["/"])
DEEPEST: Final = 24
COMPILED: Final = "__pycache__"


@dataclass(frozen=True, slots=True)
class Area:
    """The tree at `root`, resolved. Of `patterns`' places in it every change is told; of all else in it only the
    directories are followed (with `shallow` not even those), because such a place may appear there.

    `contents`: the files get a watch each, so that a write by another name (a hard link) is seen; else a write is
    seen by the directory's. `digests`: SHA-256 sums are known beforehand. `since`: what changed later (ctime, ns) and
    belongs to `owner` is told although it was there when the watching began. What another account keeps
    to itself is not entered. `skip`: names that are left out. `files`: names of which a file is told like a place of
    `patterns`, and a directory is not.
    """

    kind: Integrity
    root: str
    patterns: Patterns = EVERYTHING
    shallow: bool = False
    contents: bool = False
    digests: bool = False
    depth: int = DEEPEST
    since: int | None = None
    owner: int | None = None
    skip: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


def whole(kind: Integrity, directories: Iterable[str], *, depth: int = DEEPEST, digests: bool = False) -> list[Area]:
    """Every change below these directories; those that do not exist are left out."""
    found = dict.fromkeys(os.path.realpath(directory) for directory in directories)
    return [
        Area(kind, root, depth=depth, digests=digests, skip=frozenset({COMPILED}))
        for root in found
        if os.path.isdir(root)  # noqa: PTH112
    ]


def named(kind: Integrity, paths: Iterable[str]) -> list[Area]:
    """These paths and what is below them, which may not exist yet: their parents are watched for the names."""
    parents: dict[str, list[str]] = {}
    for path in paths:
        parent, _, name = path.rpartition("/")
        parents.setdefault(os.path.realpath(parent or "/"), []).append(name)
    return [
        Area(kind, root, Patterns(f"{root.rstrip('/')}/{name}" for name in names), shallow=True, digests=True)
        for root, names in parents.items()
        if os.path.isdir(root)  # noqa: PTH112
    ]
