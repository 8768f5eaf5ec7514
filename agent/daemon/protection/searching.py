"""The bounded search for protected places in the trees that a session may write.

Rules kept here: breadth first, so that what lies near the top is found first; no symlink is followed, also none that
takes a directory's place while this looks; what the bound,
the length of a path or a directory that cannot be listed cut is said; what the session cannot reach by file permissions
is left aside.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from agent.linux import exact
from agent.linux.openat2 import directory_without_links
from agent.policy.paths import POINTERS
from agent.policy.protection import Protected
from agent.values import dataclass

ENTRIES = 250_000
"""Directory entries that are looked at."""
REPLACED = frozenset({"node_modules", "site-packages", ".cache"})
"""Directories that package managers delete and make anew, whole: a mount in one would break them. Not searched."""
_ELSEWHERE = frozenset({"/proc", "/sys", "/dev"})
SETTLED_NS = 50_000_000
"""A directory that changed so recently may change once more within the same tick of the clock that dates changes."""
PATH_MAX = 4096  # linux/limits.h, the end's NUL included


type Stamp = tuple[int, int, int, int]
"""Device, inode, and the times (ns) of the last changes of contents and of the inode."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`reached`: can the session get to this directory, by file permissions? `entries`: how many are looked at."""

    reached: Callable[[str], bool] = lambda path: True
    entries: int = ENTRIES


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found: protected `places`, `holders` that patterns lead through. `linked`: (device, inode) of
    protected files with further names. `links`: symlinks of other names. `cut`: where it ended before its time, None
    where it did not. `anew`: directories were listed, not remembered."""

    places: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    linked: frozenset[tuple[int, int]] = frozenset()
    links: tuple[str, ...] = ()
    cut: str | None = None
    anew: bool = False


class Listing(NamedTuple):
    """What one directory held: how many `entries`, among them protected places, and what is `below` to be looked at.
    `stamp`: of then, None where it says nothing of now."""

    stamp: Stamp | None
    entries: int
    places: tuple[str, ...]
    holders: tuple[str, ...]
    links: tuple[str, ...]
    below: tuple[str, ...]

    def stands(self, directory: str) -> bool:
        """Is it the same directory with the same names still? Whoever makes, removes or moves a name in it changes its
        times (inode(7))."""
        try:
            return _stamp(os.lstat(directory)) == self.stamp
        except OSError:
            return False


type Memory = dict[str, Listing]
"""Of each directory."""


def search(roots: Sequence[str], protected: Protected, bounds: Bounds, memory: Memory | None = None) -> Found:
    """Every protected place in these trees. Never raises for what it cannot list: that is `cut`. With the `memory` of
    an earlier search only directories that have changed since are listed."""
    places = [root for root in roots if protected.rule_of(root) is not None]
    holders: list[str] = []
    linked: set[tuple[int, int]] = set()
    links: list[str] = []
    walk = Walk([root for root in roots if root not in places], bounds)
    memory = {} if memory is None else memory
    anew = False
    for directory in walk.directories():
        listing = memory.pop(directory, None)
        if listing is None or not listing.stands(directory) or not walk.count(listing.entries):
            listing, anew = _look(directory, walk, protected, bounds), True
        if listing.stamp is not None:
            memory[directory] = listing
        for path in listing.places:
            places.append(path)
            linked.update((info.st_dev, info.st_ino) for _, info in walk.files(path) if _has_more_names(info))
        holders += listing.holders
        links += listing.links
        walk.enter(listing.below)
    return Found(tuple(places), tuple(holders), frozenset(linked), tuple(links), walk.cut, anew)


def _look(directory: str, walk: Walk, protected: Protected, bounds: Bounds) -> Listing:
    stamp, entries = walk.listed(directory)
    places: list[str] = []
    holders: list[str] = []
    links: list[str] = []
    below: list[str] = []
    for path, entry in walk.counted(directory, entries):
        if protected.speaks_of(path):
            if len(os.fsencode(path)) >= PATH_MAX:
                walk.cut_at(path)
                stamp = None
            elif bounds.reached(directory):
                if protected.rule_of(path) is not None:
                    places.append(path)
                    continue
                if protected.holds(path) and not (entry.name in POINTERS and entry.is_file(follow_symlinks=False)):
                    holders.append(path)
                elif entry.is_symlink():
                    links.append(path)
        elif entry.is_symlink():
            links.append(path)
        if walk.enters(directory, path, entry):
            below.append(path)
    return Listing(
        None if walk.ended else stamp, len(entries), tuple(places), tuple(holders), tuple(links), tuple(below)
    )


def other_names(roots: Sequence[str], linked: frozenset[tuple[int, int]], bounds: Bounds) -> list[str]:
    """All names of these files in the trees; it takes a second walk, made only where there are such files."""
    if not linked:
        return []
    inodes = {inode for _, inode in linked}
    names = []
    walk = Walk(roots, bounds)
    for directory in walk.directories():
        for path, entry in walk.counted(directory, walk.listed(directory)[1]):
            if entry.inode() in inodes and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # gone since
                    info = os.lstat(path)
                    if (info.st_dev, info.st_ino) in linked:
                        names.append(path)
            elif walk.enters(directory, path, entry):
                walk.enter((path,))
    return names


class Walk:
    """The directories of trees, breadth first: what lies near the top is looked at first."""

    def __init__(self, roots: Sequence[str], bounds: Bounds) -> None:
        self._roots = frozenset(roots)
        self._pending = deque(roots)
        self._left = bounds.entries
        self._reached = bounds.reached
        self.cut: str | None = None
        self.ended = False
        """There were more entries than are looked at."""

    def directories(self) -> Iterator[str]:
        """The trees' roots, and what was `enter`ed meanwhile."""
        while self._pending and not self.ended:
            yield self._pending.popleft()

    def enter(self, directories: Iterable[str]) -> None:
        """Look at these, too, when it is their turn."""
        self._pending.extend(directories)

    def enters(self, directory: str, path: str, entry: os.DirEntry[str]) -> bool:
        """Is this entry of `directory` one to be entered?"""
        return _is_entered(path, entry) and not (directory in self._roots and not self._reached(path))

    def count(self, entries: int = 1) -> bool:
        """So many more entries; False, and they are not counted, where there would be too many."""
        if self._left < entries:
            return False
        self._left -= entries
        return True

    def counted(self, directory: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """These entries of `directory`, as many as are still to be looked at, with their paths."""
        prefix = "" if directory == "/" else directory
        for entry in entries:
            if not self.count():
                self.cut, self.ended = directory, True
                return
            yield f"{prefix}/{entry.name}", entry

    def cut_at(self, path: str) -> None:
        """What is at and below `path` is not looked at."""
        if self.cut is None and self._reached(os.path.dirname(path)):  # noqa: PTH120
            self.cut = path

    def listed(self, directory: str) -> tuple[Stamp | None, list[os.DirEntry[str]]]:
        """Its stamp and its entries; none where it is gone, or is no directory any more, or is closed to this process's
        own user. No stamp where another change might leave the times as they are."""
        try:
            opened = self._opened(directory)
        except (FileNotFoundError, NotADirectoryError):
            return None, []
        except OSError as error:
            if not isinstance(error, PermissionError) or os.geteuid() == 0:
                self.cut_at(directory)
            return None, []
        try:
            stamp = _stamp(os.fstat(opened))
            with os.scandir(opened) as found:
                return stamp if stamp[-1] < time.time_ns() - SETTLED_NS else None, list(found)
        finally:
            os.close(opened)

    def _opened(self, directory: str) -> int:
        """Raises OSError."""
        if len(os.fsencode(directory)) < PATH_MAX:
            with suppress(NotImplementedError):
                return directory_without_links(os.fsencode(directory))
        else:
            self._left -= directory.count("/")  # each name on the way is opened
        return exact.place(directory, exact.DIRECTORY)

    def files(self, place: str) -> Iterator[tuple[str, os.stat_result]]:
        """What is no directory at or below `place`, with its stat(2)."""
        pending = [place]
        while pending:
            path = pending.pop()
            if not self.count():
                self.cut = self.cut or path
                return
            try:
                info = os.lstat(path)
            except OSError:
                continue  # gone since
            if stat.S_ISDIR(info.st_mode):
                pending += [f"{path}/{entry.name}" for entry in self.listed(path)[1]]
            else:
                yield path, info


def _is_entered(path: str, entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.name not in REPLACED and path not in _ELSEWHERE


def _stamp(info: os.stat_result) -> Stamp:
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def _has_more_names(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) and info.st_nlink > 1
