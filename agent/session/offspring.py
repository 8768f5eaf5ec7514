"""Finding and ending the processes of a session by descent.

The guard and the keeper are subreapers (PR_SET_CHILD_SUBREAPER, prctl(2)), so whatever the session starts stays below
them: the end of the session is the end of all of it. Older gVisor has no subreapers: there the keeper is the
container's PID 1, to which all orphans go, and where it is not, the session's own uid tells what is left.

A process that forks and exits for ever is gone before a walk of /proc has found it, and outruns any number of walks.
What ends it is one kill(2) to all of its account's processes, which no fork slips through (the kernel holds its task
list meanwhile). That is done where all of the account's processes are this session's; beside another session of the
same account on one machine, walking is all there is.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress

from agent.linux.process import set_child_subreaper

_STUBBORN_SECONDS = 0.5
_ROUNDS = 4


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
    root: int,
    spare: Collection[int],
    reap: Callable[[], object],
    *,
    user: int | None = None,
    account: int | None = None,
    seconds: float = 5.0,
) -> int:
    """SIGKILL everything below `root` but `spare`, again and again until nothing is left or `seconds` have passed.

    `reap` is called between the rounds. `account`: the uid of the session's processes and of no other below
    `root`. Returns how many are left (0 is the aim; a task in uninterruptible sleep may stay).
    """
    deadline = time.monotonic() + seconds
    stubborn = time.monotonic() + _STUBBORN_SECONDS
    while True:
        left = descendants(root, spare, user)
        if account and (time.monotonic() > stubborn if left else _stirs(root, spare, reap)):
            if not foreign(root, account):
                _kill_account(account)
            reap()
            if not left and time.monotonic() < deadline:
                continue
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        if not left or time.monotonic() > deadline:
            return len(left)
        time.sleep(0.005)


def _stirs(root: int, spare: Collection[int], reap: Callable[[], object]) -> bool:
    """True where `root` has ever new children though a walk found none: what forks and exits all the time."""
    for _ in range(_ROUNDS):
        reap()
        time.sleep(0.004)
        if not _children(root) - set(spare):
            return False
    return True


def _children(root: int) -> set[int]:
    """The direct children of `root`, zombies included."""
    found = set()
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                stat = file.read()
                if int(stat[stat.rfind(b")") + 2 :].split()[1]) == root:
                    found.add(int(entry))
    return found


def foreign(root: int, account: int) -> list[int]:
    """Processes of `account` that are certainly not below `root`: their line of parents is known up to its end."""
    parents: dict[int, int] = {}
    owned: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with suppress(OSError), open(f"/proc/{entry}/status", "rb") as file:  # proc_pid_status(5)
                fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
                parents[int(entry)] = int(fields[b"PPid"])
                if b"%d" % account in fields[b"Uid"].split():
                    owned.append(int(entry))
    return [pid for pid in owned if _ends_elsewhere(pid, root, parents)]


def _ends_elsewhere(pid: int, root: int, parents: dict[int, int]) -> bool:
    for _ in range(len(parents)):
        if pid == root or pid not in parents:
            return False
        if pid == 1 or parents[pid] == 0:
            return True
        pid = parents[pid]
    return False


def _kill_account(account: int) -> None:
    """SIGKILL to all processes of `account` at once, sent as that account: it can reach no other (kill(2))."""
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(account, account, account)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
