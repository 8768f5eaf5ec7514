"""Finding and ending the processes of a session by descent.

The guard and the keeper are subreapers (PR_SET_CHILD_SUBREAPER, prctl(2)), so whatever the session starts stays below
them: the end of the session is the end of all of it. Older gVisor has no subreapers: there the keeper is the
container's PID 1, to which all orphans go, and where it is not, the session's own uid tells what is left.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress

from agent.linux.process import set_child_subreaper


def adopt_orphans() -> bool:
    """Become a subreaper; True where every orphan of this process's descendants will be its child."""
    try:
        set_child_subreaper()
    except OSError:
        return os.getpid() == 1
    return True


def descendants(root: int, spare: Collection[int] = (), user: int | None = None) -> list[int]:
    """Process ids below `root`, without those in `spare` and what is below them; and all of `user`'s where given. Reads
    /proc/PID/stat (proc(5))."""
    children: dict[int, list[int]] = defaultdict(list)
    owned: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  (names are all that is needed)
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                stat = file.read()
                owner = os.fstat(file.fileno()).st_uid
        except OSError:
            continue
        fields = stat[stat.rfind(b")") + 2 :].split()
        if fields and fields[0] != b"Z":
            children[int(fields[1])].append(int(entry))
            if owner == user:
                owned.append(int(entry))
    found = owned
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in spare:
                found.append(child)
                queue.append(child)
    return found


def end_all(
    root: int, spare: Collection[int], reap: Callable[[], None], *, user: int | None = None, seconds: float = 5.0
) -> int:
    """SIGKILL everything below `root` but `spare`, again and again until nothing is left or `seconds` have passed.

    `reap` is called between the rounds. Returns how many are left (0 is the aim; a task in uninterruptible sleep may
    stay).
    """
    deadline = time.monotonic() + seconds
    while True:
        left = descendants(root, spare, user)
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        if not left or time.monotonic() > deadline:
            return len(left)
        time.sleep(0.005)
