"""The launcher's mounts that hold protected places, in a mount namespace of the session's own.

Rules kept here: in the plan's order, each parent before what is below; every name is opened component by component and
no symlink is followed, so that what another session moves meanwhile cannot lead a mount elsewhere; what is gone is left
out (it is then like a name that is made later), but for a placeholder out of a directory that is still there; whatever
else fails ends the launch.

The session cannot undo them: it has no CAP_SYS_ADMIN in the user namespace that owns the mount namespace (mount(2),
umount(2)), no_new_privs keeps it so, and unshare and setns are not among its calls (mount_namespaces(7)). A mount point
is neither renamed nor removed in its own mount namespace (EBUSY: rename(2), unlink(2)), what is below a read-only one
not written (EROFS), nor its metadata changed.
"""

from __future__ import annotations

import os

from agent.linux import namespaces
from agent.session.plan import Hold

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def hold(places: tuple[tuple[str, Hold], ...], *, empty: str) -> None:
    """Make the mounts. `empty`: the file that is shown in the place of a reserved one. Raises OSError."""
    if not places:
        return
    stand_in = os.open(empty, _PLACE)
    try:
        for path, how in places:
            try:
                _hold(path, how, stand_in)
            except (FileNotFoundError, NotADirectoryError):
                if how is Hold.RESERVE and os.path.lexists(path.rpartition("/")[0]):
                    raise
    finally:
        os.close(stand_in)


def _hold(path: str, how: Hold, stand_in: int) -> None:
    place = open_place(path)
    try:
        directory = os.path.isdir(f"/proc/self/fd/{place}")  # noqa: PTH112  (the launcher keeps its imports lean)
        shown = stand_in if how is Hold.RESERVE and not directory else place
        namespaces.bind(f"/proc/self/fd/{shown}", f"/proc/self/fd/{place}", recursive=directory)
    finally:
        os.close(place)
    if how is Hold.PIN:
        return
    mounted = open_place(path)
    try:
        namespaces.make_read_only(mounted)
    finally:
        os.close(mounted)


def open_place(path: str) -> int:
    """The place itself, as a descriptor; mounts on the way are crossed, symlinks are not (ENOTDIR)."""
    at = os.open("/", _PLACE)
    for part in path[1:].split("/"):
        try:
            below = os.open(part, _PLACE, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at
