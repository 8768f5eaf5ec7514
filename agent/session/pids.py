"""A process namespace of the session's own, with a /proc that shows nothing else.

Its first process is the session's init: when that ends the kernel kills all the others, however they have been started
(pid_namespaces(7)). Rules kept here: the namespace counts only together with a /proc of its own, because programs look
themselves up there; and what a container's runtime has covered of /proc (mounts below it) stays covered in the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from agent.linux import namespaces

NEEDED = namespaces.NEWPID | namespaces.NEWNS | namespaces.NEWIPC
"""What is unshared together: a /proc of its own needs mounts of its own; and System V shared memory and its kin have no
paths that could be ruled, so nothing outside may have left any."""
_PROC = "/proc"


def fresh_proc() -> None:
    """Mount a /proc for the process namespace of this process, in a mount namespace whose mounts are private. Raises
    OSError."""
    covers = [(os.open(path, os.O_PATH | os.O_CLOEXEC), path) for path in namespaces.mount_points(_PROC)]
    namespaces.proc(_PROC)
    for cover, path in covers:
        with suppress(FileNotFoundError):  # nothing is there to be covered
            namespaces.bind(f"/proc/self/fd/{cover}", path)
        os.close(cover)


def attempt(become_owner: Callable[[], None]) -> int:
    """0 where a first process and its /proc are to be had, else 1; for a process that is thrown away. `become_owner`
    takes the rights for it, such as those of a user namespace."""
    become_owner()
    outside = str(os.getpid())
    namespaces.unshare(NEEDED)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            namespaces.make_mounts_private()
            fresh_proc()
            status = 0 if _alone(outside) else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _alone(outside: str) -> bool:
    """Whether this is the first process, and /proc shows it and no other."""
    shown = {entry for entry in os.listdir(_PROC) if entry.isdigit()}  # noqa: PTH208
    return os.getpid() == 1 and shown == {"1"} and os.readlink("/proc/self") == "1" != outside  # noqa: PTH115
