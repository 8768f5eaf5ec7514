"""Empty files in the place of sensitive ones that the session may not read, so that its attempts are seen.

Rules kept here: a decoy is empty and root's, on a read-only mount of a file system of its own, and lies only where the
session could not read before (the plan's say); every open of one is asked of the guard, which refuses it; should nobody
answer any more, an empty file is read. No symlink on the way is followed. What is not there, or of another kind than
planned, gets none. Whatever else fails ends the launch.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from agent.linux import exact, fanotify, namespaces
from agent.session.plan import Decoy

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SIZE = "4m"
FRESH = "/run"
"""Where places are made for decoys, if the session has an empty directory there instead of the machine's."""


class Decoys:
    """Those of one session. `ground`: a directory that the session does not see, over which their file system is
    mounted. Raises OSError."""

    def __init__(self, decoys: Iterable[Decoy], ground: str, hand_over: Callable[[int], None]) -> None:
        """`hand_over` gets the group that is asked before each open (see `agent.linux.fanotify`)."""
        self._made: list[tuple[str, int]] = []
        namespaces.tmpfs(ground, mode=0o700, size=_SIZE)
        for number, (path, names) in enumerate(decoys):
            base = f"{ground}/{number}"
            _make(base, names)
            self._made.append((path, os.open(base, _PLACE)))
        group = fanotify.group()
        try:
            fanotify.ask_before_opens(group, ground)
            hand_over(group)
        finally:
            os.close(group)

    def show(self, *, fresh: bool) -> list[int]:
        """Put them where they belong; returns those that are shown, each open as a place that the caller closes.
        `fresh`: directories in `FRESH` may be made."""
        shown = []
        for path, made in self._made:
            place = _show(made, path, fresh=fresh and path.rpartition("/")[0] == FRESH)
            if place is not None:
                shown.append(place)
            os.close(made)
        return shown


def _make(base: str, names: tuple[str, ...]) -> None:
    if not names:
        os.close(os.open(base, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        return
    os.mkdir(base, 0o555)  # noqa: PTH102  (the launcher keeps its imports lean)
    for name in sorted(names):
        directory, _, last = f"{base}/{name}".rpartition("/")
        with suppress(FileExistsError, NotADirectoryError):  # names that contradict each other: the first counts
            os.makedirs(directory, mode=0o555, exist_ok=True)  # noqa: PTH103
            if last:
                os.close(os.open(f"{directory}/{last}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _show(made: int, path: str, *, fresh: bool) -> int | None:
    directory = stat.S_ISDIR(os.fstat(made).st_mode)
    if fresh and directory and not os.path.lexists(path):
        os.makedirs(path, mode=0o755)  # noqa: PTH103
    try:
        place = exact.place(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        there = os.fstat(place).st_mode
        if not (stat.S_ISDIR(there) if directory else stat.S_ISREG(there) or stat.S_ISCHR(there)):
            return None  # a character device: /dev/null, which hides a file of the agent's
        namespaces.bind(f"/proc/self/fd/{made}", f"/proc/self/fd/{place}")
    finally:
        os.close(place)
    mounted = exact.place(path)
    namespaces.make_read_only(mounted)
    return mounted
