"""The bounded search for protected places in the trees that a session may write.

Rules kept here: breadth first, so that what lies near the top is found first; no symlink is followed, also none that
takes a directory's place while this looks; what the bound,
the length of a path or a directory that cannot be listed cut is said; what the session cannot reach by file permissions
is left aside.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

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
PATH_MAX = 4096  # linux/limits.h, the end's NUL included


@dataclass(frozen=True, slots=True)
class Bounds:
    """`reached`: can the session get to this directory, by file permissions? `entries`: how many are looked at."""

    reached: Callable[[str], bool] = lambda path: True
    entries: int = ENTRIES


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found: protected `places`, `holders` that patterns lead through. `linked`: (device, inode) of
    protected files with further names. `links`: symlinks of other names. `cut`: where it ended before its time, None
    where it did not."""

    places: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    linked: frozenset[tuple[int, int]] = frozenset()
    links: tuple[str, ...] = ()
    cut: str | None = None


def search(roots: Sequence[str], protected: Protected, bounds: Bounds) -> Found:
    """Every protected place in these trees. Never raises for what it cannot list: that is `cut`."""
    places = [root for root in roots if protected.rule_of(root) is not None]
    holders: list[str] = []
    linked: set[tuple[int, int]] = set()
    links: list[str] = []
    walk = Walk([root for root in roots if root not in places], bounds)
    for path, entry in walk:
        if protected.speaks_of(path):
            if len(os.fsencode(path)) >= PATH_MAX:
                walk.cut_at(path)
                continue
            if not bounds.reached(os.path.dirname(path)):  # noqa: PTH120
                continue
            if protected.rule_of(path) is not None:
                places.append(path)
                walk.skip()
                linked.update((info.st_dev, info.st_ino) for _, info in walk.files(path) if _has_more_names(info))
                continue
            if protected.holds(path) and not (entry.name in POINTERS and entry.is_file(follow_symlinks=False)):
                holders.append(path)
                continue
        if entry.is_symlink():
            links.append(path)
    return Found(tuple(places), tuple(holders), frozenset(linked), tuple(links), walk.cut)


def other_names(roots: Sequence[str], linked: frozenset[tuple[int, int]], bounds: Bounds) -> list[str]:
    """All names of these files in the trees; it takes a second walk, made only where there are such files."""
    if not linked:
        return []
    inodes = {inode for _, inode in linked}
    names = []
    for path, entry in Walk(roots, bounds):
        if entry.inode() in inodes and entry.is_file(follow_symlinks=False):
            info = os.lstat(path)
            if (info.st_dev, info.st_ino) in linked:
                names.append(path)
    return names


class Walk:
    """The entries of trees, breadth first: what lies near the top is looked at first."""

    def __init__(self, roots: Sequence[str], bounds: Bounds) -> None:
        self._roots = frozenset(roots)
        self._pending = deque(roots)
        self._left = bounds.entries
        self._reached = bounds.reached
        self._descend = True
        self.cut: str | None = None

    def skip(self) -> None:
        """Do not enter the directory that was yielded last."""
        self._descend = False

    def count(self) -> bool:
        """One more entry; False where there were too many."""
        self._left -= 1
        return self._left >= 0

    def __iter__(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        while self._pending:
            directory = self._pending.popleft()
            prefix = "" if directory == "/" else directory
            for entry in self._listed(directory):
                if not self.count():
                    self.cut = directory
                    return
                path = f"{prefix}/{entry.name}"
                self._descend = True
                yield path, entry
                near = directory in self._roots
                if self._descend and _is_entered(path, entry) and not (near and not self._reached(path)):
                    self._pending.append(path)

    def cut_at(self, path: str) -> None:
        """What is at and below `path` is not looked at."""
        if self.cut is None and self._reached(os.path.dirname(path)):  # noqa: PTH120
            self.cut = path

    def _listed(self, directory: str) -> list[os.DirEntry[str]]:
        """Its entries; none where it is gone, or is no directory any more, or is closed to this process's own user."""
        try:
            opened = self._opened(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if not isinstance(error, PermissionError) or os.geteuid() == 0:
                self.cut_at(directory)
            return []
        try:
            with os.scandir(opened) as found:
                return list(found)
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
                pending += [f"{path}/{entry.name}" for entry in self._listed(path)]
            else:
                yield path, info


def _is_entered(path: str, entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.name not in REPLACED and path not in _ELSEWHERE


def _has_more_names(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) and info.st_nlink > 1
