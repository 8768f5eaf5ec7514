"""The launcher's mounts that hold protected places, in a mount namespace of the session's own.

Rules kept here: in the plan's order, each parent before what is below; every name is opened component by component and
no symlink is followed, so that what another session moves meanwhile cannot lead a mount elsewhere; a mount is made of
what was opened and laid on it, read-only before it is seen. What is gone is left out. When all are made each is looked
up once more: what is not there, and what is there and is no mount, is told to the guard, which looks where it is by now
and has it held there; whatever else fails ends the launch.

The session cannot undo them: it has no CAP_SYS_ADMIN in the user namespace that owns the mount namespace (mount(2),
umount(2)), no_new_privs keeps it so, and unshare and setns are not among its calls (mount_namespaces(7)). A mount point
is neither renamed nor removed in its own mount namespace (EBUSY: rename(2), unlink(2)), what is below a read-only one
not written (EROFS), nor its metadata changed.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum, auto

from agent.linux import exact, namespaces
from agent.session.plan import Hold

type Places = Iterable[tuple[str, Hold]]

TRIES = 12
PAUSE_SECONDS = 0.0005
"""How often a place that is not at its path is looked for again, and after how long: another process may move it to and
fro."""


class Holding:
    """The mounts that were made, and whether they still are where they were made. `empty`: the file that is shown in
    the place of a reserved one. Every method raises OSError."""

    def __init__(self, empty: str) -> None:
        self._stand_in = exact.place(os.path.realpath(empty))
        self._held: dict[str, Hold] = {}

    def lay(self, places: Places) -> None:
        """Make these mounts, but of what is gone."""
        for path, how in places:
            self._held[path] = how
            with suppress(FileNotFoundError, NotADirectoryError):
                _hold(path, how, self._stand_in)

    def hold(self, places: Places) -> None:
        """Make those of them that are not there, and see to it that they are; what stays away is left out."""
        left = list(places)
        for attempt in range(TRIES):
            time.sleep(PAUSE_SECONDS if attempt else 0)
            self.lay((path, how) for path, how in left if _state(path, how) is not State.HELD)
            left = [(path, how) for path, how in left if _state(path, how) is not State.HELD]
            if not left:
                return

    def lost(self) -> list[str]:
        """Places that are not there, or that nothing holds: something else lies there, or a directory above is another
        one."""
        return [path for path, how in self._held.items() if _state(path, how) is not State.HELD]

    def opened(self) -> list[str]:
        """Places that are in sight, and cannot be held any more; none where the kernel does not tell what is held."""
        if namespaces.is_mount_root(self._stand_in) is None:
            return []
        places = [(path, how) for path, how in self._held.items() if _state(path, how) is State.OPEN]
        self.hold(places)
        return [path for path, how in places if _state(path, how) is State.OPEN]

    def close(self) -> None:
        """What is mounted stays."""
        os.close(self._stand_in)


class State(Enum):
    """Of a place at this moment."""

    HELD = auto()
    OPEN = auto()
    GONE = auto()


def _state(path: str, how: Hold) -> State:
    """A mount stands on one entry of one directory as another mount shows it, and is seen only there. Where the kernel
    does not say what is a mount's root (gVisor), what is there is taken for held."""
    try:
        place = exact.place(path)
    except (FileNotFoundError, NotADirectoryError):
        return State.GONE
    try:
        held = namespaces.is_mount_root(place)
        if held and how is not Hold.PIN:
            held = bool(os.fstatvfs(place).f_flag & os.ST_RDONLY)
    finally:
        os.close(place)
    return State.OPEN if held is False else State.HELD


def _hold(path: str, how: Hold, stand_in: int) -> None:
    place = exact.place(path)
    try:
        directory = os.path.isdir(f"/proc/self/fd/{place}")  # noqa: PTH112  (the launcher keeps its imports lean)
        shown = stand_in if how is Hold.RESERVE and not directory else place
        try:
            namespaces.lay(shown, place, recursive=directory, read_only=how is not Hold.PIN)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            _hold_by_name(path, how, shown, place, directory)
    finally:
        os.close(place)


def _hold_by_name(path: str, how: Hold, shown: int, place: int, directory: bool) -> None:
    """The same where a mount cannot be made before it is laid (Linux before 5.12, gVisor): if something else has the
    name when it is looked up again, that is no mount's root, and the launch ends (EINVAL)."""
    namespaces.bind(f"/proc/self/fd/{shown}", f"/proc/self/fd/{place}", recursive=directory)
    if how is Hold.PIN:
        return
    mounted = exact.place(path)
    try:
        namespaces.make_read_only(mounted)
    finally:
        os.close(mounted)
