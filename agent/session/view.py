"""What the session sees of the file system, in a mount namespace of its own: what is granted, and nothing else.

Where there is Landlock this is a second wall, which also keeps what Landlock has no right for: connecting to sockets by
their path, and changing mode, times and attributes. Where there is none (gVisor) it is the path guard.

Rules kept here: a directory that no grant reaches is covered by an empty one that nobody enters (EACCES); one that only
leads to grants is replaced by one in which they appear, and what else is in it now as such an empty one or an
unreadable file: refused like before, and nothing made in it later is seen; what is granted for reading is read-only
(EROFS); what is granted for writing stays as it is. Symlinks directly below / stay,
others on the way to a grant are made again; none that the session's account made is followed, and what was found is
then opened without following any. The session cannot undo it (agent.session.mounts says why).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import islice

from agent.linux import exact, namespaces
from agent.values import dataclass

_SLASH = re.compile("/")
_DEV = "/dev"
_LIVE = ("/proc", _DEV)
"""Never covered nor read-only as a whole: programs do not work without them, and have rules of their own."""
_SHOWN = 256
"""So many names of one replaced directory stay known; further ones are not there (ENOENT)."""


@dataclass(frozen=True, slots=True)
class View:
    """Real places (no symlink on the way), and the symlinks that lead to them: (path, target)."""

    read: frozenset[str]
    write: frozenset[str]
    links: frozenset[tuple[str, str]]

    @property
    def seen(self) -> frozenset[str]:
        """Everything that must be there."""
        return self.read | self.write | {path for path, _ in self.links}


def view_of(read: Iterable[str], write: Iterable[str], session: int | None) -> View:
    """The grants as they lie on this machine; those that do not exist are left out. `session`: the uid whose symlinks
    are not followed. Raises exact.Planted."""
    links: set[tuple[str, str]] = set()
    reads = {real for path in read if (real := _real(path, links, session)) is not None}
    writes = {real for path in write if (real := _real(path, links, session)) is not None}
    if "/" in reads:
        reads |= {f"/{name}" for name in os.listdir("/") if not os.path.islink(f"/{name}")}  # noqa: PTH208, PTH114
    return View(frozenset(reads - writes), frozenset(writes), frozenset(links))


def narrow(view: View, *, empty: str, spare: tuple[str, ...]) -> None:
    """Make it so. `spare`: directories directly below / that somebody else replaces. `empty`: the file, of root's, that
    is shown in the place of ungranted ones. Raises OSError."""
    if "/" in view.write:
        return
    writable = [(path, exact.place(path)) for path in sorted(view.write)]
    stand_in = exact.place(os.path.realpath(empty))
    if "/" not in view.read:
        _cover("/", view, (*spare, *_LIVE), stand_in)
        _cover(_DEV, view, (), stand_in)
    os.close(stand_in)
    for path in sorted(view.read - {"/"}):
        others = [other for other in view.read if other not in (path, "/")]
        if not _inside(path, (*others, *view.write, *_LIVE, *spare)):
            _bind(path, None)
            _read_only(path)
    for path, place in writable:
        if _inside(path, view.read):
            _bind(path, place)
        os.close(place)


def _cover(directory: str, view: View, spare: tuple[str, ...], stand_in: int) -> None:
    """Cover what lies in `directory` itself, but for symlinks and devices."""
    for name in sorted(os.listdir(directory)):  # noqa: PTH208  (the launcher keeps its imports lean)
        path = f"{directory.rstrip('/')}/{name}"
        if path in spare or _inside(path, view.seen):
            continue
        mode = os.lstat(path).st_mode
        below = [seen for seen in view.seen if seen.startswith(f"{path}/")]
        if stat.S_ISDIR(mode) and below:
            _replace(path, view, below)
        elif stat.S_ISDIR(mode):
            namespaces.tmpfs(path, mode=0o000, size="4k", read_only=True)
        elif stat.S_ISREG(mode) or stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
            namespaces.bind(f"/proc/self/fd/{stand_in}", path)


def _replace(directory: str, view: View, below: list[str]) -> None:
    """Show a directory in which only what lies `below` can be entered or read."""
    links = dict(view.links)
    outermost = sorted(path for path in below if not any(path.startswith(f"{other}/") for other in below))
    closed = list(_beside(directory, outermost))
    places = [(path, exact.place(path)) for path in outermost if path not in links]
    namespaces.tmpfs(directory, mode=0o755, size="256k")
    for path in outermost:
        os.makedirs(path.rpartition("/")[0], mode=0o755, exist_ok=True)  # noqa: PTH103
        if path in links:
            os.symlink(links[path], path)  # noqa: PTH211
    for path, is_directory in closed:
        if is_directory:
            os.mkdir(path, 0o000)  # noqa: PTH102
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o000))
    for path, place in places:
        if stat.S_ISDIR(os.fstat(place).st_mode):
            os.mkdir(path, 0o755)  # noqa: PTH102
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        namespaces.bind(f"/proc/self/fd/{place}", path, recursive=True)
        os.close(place)
    namespaces.mount("none", directory, None, namespaces.MS_REMOUNT | namespaces.MS_RDONLY, "mode=755")


def _beside(directory: str, granted: list[str]) -> Iterator[tuple[str, bool]]:
    """What lies beside the ways from `directory` to what is granted, and whether it is a directory; no symlinks."""
    ways = {path[: at.start()] for path in granted for at in _SLASH.finditer(path) if at.start() >= len(directory)}
    for way in sorted(ways):
        place = exact.place(way, exact.DIRECTORY)
        try:
            with os.scandir(place) as entries:
                for entry in islice(entries, _SHOWN):
                    path = f"{way}/{entry.name}"
                    if path not in ways and path not in granted and not entry.is_symlink():
                        yield path, entry.is_dir(follow_symlinks=False)
        finally:
            os.close(place)


def _bind(path: str, source: int | None) -> None:
    """Let what `source` is appear at `path`; itself where None."""
    place = exact.place(path)
    try:
        shown = place if source is None else source
        namespaces.bind(f"/proc/self/fd/{shown}", f"/proc/self/fd/{place}", recursive=True)
    finally:
        os.close(place)


def _read_only(path: str) -> None:
    place = exact.place(path)
    try:
        namespaces.make_read_only(place)
    finally:
        os.close(place)


def _inside(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root.rstrip('/')}/") for root in roots)


def _real(path: str, links: set[tuple[str, str]], session: int | None) -> str | None:
    """Where `path` really lies; the symlinks on the way that are not directly below / are added to `links`."""
    way = exact.found(path, session)
    if way is None:
        return None
    os.close(way.place)
    links.update((link, target) for link, target in way.links if link.count("/") > 1)
    return way.real
