"""The launcher's mounts that hold protected places, in a mount namespace of the session's own.

Rules kept here: in the plan's order, each parent before what is below; every name is opened component by component and
no symlink is followed, so that what another session moves meanwhile cannot lead a mount elsewhere; a mount is made of
what was opened and laid on it, read-only before it is seen, and nothing is looked up a second time. What is gone is
left out and told, for it may come back; a placeholder that is gone out of a directory that is still there ends the
launch, and so does whatever else fails.

The session cannot undo them: it has no CAP_SYS_ADMIN in the user namespace that owns the mount namespace (mount(2),
umount(2)), no_new_privs keeps it so, and unshare and setns are not among its calls (mount_namespaces(7)). A mount point
is neither renamed nor removed in its own mount namespace (EBUSY: rename(2), unlink(2)), what is below a read-only one
not written (EROFS), nor its metadata changed.
"""

from __future__ import annotations

import errno
import os

from agent.linux import exact, namespaces
from agent.session.plan import Hold


def hold(places: tuple[tuple[str, Hold], ...], *, empty: str) -> list[str]:
    """Make the mounts; returns the places, but for pinned ones, that were gone. `empty`: the file that is shown in the
    place of a reserved one. Raises OSError."""
    if not places:
        return []
    lost = []
    stand_in = exact.place(os.path.realpath(empty))
    try:
        for path, how in places:
            try:
                _hold(path, how, stand_in)
            except (FileNotFoundError, NotADirectoryError):
                if how is Hold.RESERVE and os.path.lexists(path.rpartition("/")[0]):
                    raise
                if how is not Hold.PIN:
                    lost.append(path)
    finally:
        os.close(stand_in)
    return lost


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
