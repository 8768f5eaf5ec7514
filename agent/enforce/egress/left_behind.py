"""Sockets that a restore has taken out of the session's network, and how a restore shows there.

gVisor (runsc 2024-07) gives each network namespace but the sandbox's first a fresh stack when it restores a checkpoint,
and joins the sockets of before, whatever namespace they were made in, to the *first* one's. So what the session opened
in its jail before the checkpoint would reach whatever the container reaches, and what it listens on is heard there.

Rules kept here:
- In a traced jail every call by which such a socket could be used for a new connection (`CALLS`) stands still until it
  is looked at here (`agent.session.filter_table`); before a restore it goes on at once.
- After one, as long as any inet socket of before is left in the session, a call goes on only in a program of one
  thread (another one could swap the descriptor after the check) and with a socket that is a UNIX socket or younger.
  When none is left there is nothing to look at any more: a socket that is gone does not come back.
- A program that has a datagram socket of before which is connected ends: it sends with calls that do not stop here.
- Whatever cannot be found out is refused.

A restore shows by itself, without any clock: a listener of the jail's that nobody else knows (the mark) can be reached
from the first namespace. Sockets are told apart by their inodes, which gVisor numbers one by one for all of them.
Not held: a stream that was connected stays so, which leads nowhere new; a datagram socket until the restore is noticed;
a call that was let go and had not run yet at the moment of the checkpoint.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from agent.enforce.who import signed
from agent.linux.notify import Notification
from agent.linux.syscalls import number
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.request import EgressRequest, Origin, Protocol
from agent.policy.rule_ids import AGENT_FAULT

log = logging.getLogger(__name__)

CALLS: Final = ("connect", "sendto", "sendmsg", "sendmmsg", "accept", "accept4")
RULE: Final = "socket-left-behind"
REASON: Final = (
    "sockets of before the restore are outside of the session's network: until all of them are closed only programs of"
    " one thread connect, with new ones"
)
CONNECTED: Final = "a connected datagram socket of before the restore is outside of the session's network: ended"
TABLES: Final = ("tcp", "tcp6", "udp", "udp6")
FRESH_SECONDS: Final = 0.02
"""A look is good for so long: no restore takes less, and gVisor's clock goes on by what passed outside."""
PATIENCE_SECONDS: Final = 1.0
ATTEMPTS: Final = 40
ATTEMPT_SECONDS: Final = 0.05
_PEER, _OWNER, _INODE, _UNIX_INODE = 2, 7, 9, 6  # columns of /proc/net/tcp, and of /proc/net/unix

type Deny = Callable[[EgressRequest, Decision], object]


class LeftBehind:
    """Notices restores by `watch`ed marks, and answers for `CALLS`. From any thread.

    `uid`: whose sockets are the session's; None: those that neither this process nor its parent has open. `clock`:
    time.monotonic's.
    """

    def __init__(
        self,
        deny: Deny,
        uid: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deny = deny
        self._uid = uid
        self._clock = clock
        self._lock = threading.Lock()
        self._marks: list[int] = []
        self._looked = -1.0
        self._times = 0
        self._newest: int | None = None

    def handlers(self) -> dict[int, LeftBehind]:
        """By the number of the call (`agent.enforce.commands.tracer.Other`)."""
        return {found: self for name in CALLS if (found := number(name)) is not None}

    def watch(self, port: int) -> None:
        """A listener on this port of the jail's 127.0.0.1 is a mark from here on."""
        with self._lock:
            self._marks.append(port)
            self._looked = -1.0

    def times(self) -> int:
        """How many restores have shown so far. Raises OSError where that cannot be found out."""
        with self._lock:
            now = self._clock()
            if not 0 <= now - self._looked < FRESH_SECONDS or self._looked < 0:
                self._look()
                self._looked = now
            return self._times

    def answer(self, stopped: Notification) -> int:
        """0 to let the call go on, else the errno by which it fails. Raises OSError: then it is to fail."""
        if self.times() == 0 or self._may(stopped):
            return 0
        self._record(stopped.tid, RULE, REASON)
        return errno.EACCES

    def fault(self, stopped: Notification) -> None:
        """It was refused because nobody could decide it."""
        self._record(stopped.tid, AGENT_FAULT, "the agent could not decide; see its log")

    def overdue(self, stopped: Notification, seconds: float) -> None:
        """It was refused because no answer came in time."""
        self._record(stopped.tid, "connect-deadline", f"not decided within {seconds:g} s")

    def end_connected(self) -> None:
        """After a restore: end whoever has a datagram socket of before that is connected. Raises OSError where one is
        left that nobody is seen to have (it may be on its way in a message)."""
        with self._lock:
            newest = self._newest
        for _ in range(ATTEMPTS if newest is not None else 0):
            left = {int(row[_INODE]) for row in self._of_session(_rows("udp"), newest or 0) if _is_connected(row)}
            if not left:
                return
            for pid in _holders(left, self._uid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self._record(pid, RULE, CONNECTED)
            time.sleep(ATTEMPT_SECONDS)
        if newest is not None:
            raise OSError(errno.EBUSY, "a connected datagram socket of before the restore is left")

    def _record(self, pid: int, rule: str, reason: str) -> None:
        request = EgressRequest("?", 0, datetime.now(UTC).date(), Origin("connect", pid=pid), Protocol.TCP)
        self._deny(request, Decision(Verdict.DENY, rule, reason, "", severity=Severity.HIGH))

    def _look(self) -> None:
        for mark in list(self._marks):
            if _reached(mark):
                self._marks.remove(mark)
                self._times += 1
                self._newest = _next_inode()
                log.warning("the session's sockets of before are outside of its network: restored from a checkpoint")

    def _may(self, stopped: Notification) -> bool:
        with self._lock:
            newest = self._newest
        if newest is None:
            return True
        if not self._left(newest):
            with self._lock:
                self._newest = None if self._newest == newest else self._newest
            return True
        if _threads(stopped.tid) != 1:
            return False
        inode = _inode(stopped.tid, signed(stopped.arguments[0]))
        return inode is None or inode > newest or any(int(row[_UNIX_INODE]) == inode for row in _rows("unix"))

    def _left(self, newest: int) -> bool:
        """Whether the session has an inet socket that is no younger than that."""
        return any(self._of_session(_rows(table), newest) for table in TABLES)

    def _of_session(self, rows: list[list[bytes]], newest: int) -> list[list[bytes]]:
        """Its sockets among these that are no younger than that."""
        old = [row for row in rows if int(row[_INODE]) <= newest]
        if self._uid is not None:
            return [row for row in old if int(row[_OWNER]) == self._uid]
        agents = _held(os.getpid()) | _held(os.getppid()) if old else set()
        return [row for row in old if int(row[_INODE]) not in agents]


def _is_connected(row: list[bytes]) -> bool:
    return int(row[_PEER].rpartition(b":")[2], 16) != 0


def _holders(inodes: set[int], uid: int | None) -> list[int]:
    """Processes of this account (None: of any) that have one of these sockets open."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        with suppress(OSError, ValueError):
            if (uid is None or os.stat(f"/proc/{name}").st_uid == uid) and _held(int(name)) & inodes:  # noqa: PTH116
                found.append(int(name))
    return found


def _reached(port: int) -> bool:
    """Whether something listens there in this process's network namespace. Raises OSError where that stays open."""
    with socket.socket() as attempt:
        attempt.settimeout(PATIENCE_SECONDS)
        found = attempt.connect_ex(("127.0.0.1", port))
    if found not in (0, errno.ECONNREFUSED):
        raise OSError(found, f"port {port} of loopback: {os.strerror(found)}")
    return found == 0


def _next_inode() -> int:
    with socket.socket(socket.AF_UNIX) as made:
        return os.fstat(made.fileno()).st_ino


def _threads(tid: int) -> int:
    with open(f"/proc/{tid}/status", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"Threads:"))


def _rows(table: str) -> list[list[bytes]]:
    """The sockets of every network namespace of the sandbox, those on their way in a message included (proc_net(5)).
    gVisor has no list of IPv6's datagram sockets, of which its sessions therefore have none."""
    with suppress(FileNotFoundError), open(f"/proc/net/{table}", "rb") as file:
        return [row for line in list(file)[1:] if (row := line.split())]
    if table == "udp6":
        return []
    raise FileNotFoundError(errno.ENOENT, "no such table", table)


def _held(pid: int) -> set[int]:
    """The sockets that a process has open. Empty where that cannot be seen: then they count as the session's."""
    found = set()
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names are all that is needed
            with suppress(OSError):
                inode = _inode(pid, int(descriptor))
                found |= set() if inode is None else {inode}
    return found


def _inode(tid: int, descriptor: int) -> int | None:
    """The socket behind a task's descriptor; None where it is none, or is not there: the call fails by itself."""
    try:
        target = os.readlink(f"/proc/{tid}/fd/{descriptor}")  # noqa: PTH115
    except FileNotFoundError:
        return None
    kind, _, rest = target.partition(":[")
    return int(rest[:-1]) if kind == "socket" else None
