"""UNIX sockets connected, bound and listened with on the session's behalf: as its user, from its directories.

Each step is done by a forked child of a millisecond's life, because everything about it must be the session's (the
effective user and group, which SO_PEERCRED shows the other side; the working directory, the root, the umask) and
nothing of it may touch the guard's own threads. Rules kept here: the child's real user stays the agent's, so the
session can neither signal nor trace it; a path is opened once, judged as what was opened, and *that* is connected to
(what lies in another mount namespace is nobody's to judge, and refused);
a socket is bound under a Landlock ruleset that lets it appear only where the session may write (as far as the kernel
has Landlock); a child that does not answer in time is killed and the call fails.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from agent.enforce.egress.dialling import Patience
from agent.enforce.memory import Task, readable
from agent.linux import landlock, process
from agent.linux.syscalls import syscall
from agent.policy.paths import covers
from agent.values import dataclass

PATIENCE_S = 0.5
"""How long one step may take; a server whose queue is full is waited for by `Patience` only."""
REMEMBERED = 256
"""How many children's principals are known afterwards."""
_RESULT = struct.Struct("=ii")
_O_PATH = os.O_PATH | os.O_CLOEXEC
_FAILED = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """`error`: an errno, 0 where it was done. `refused`: the path that was judged and refused, else empty."""

    error: int
    refused: str = ""


class OnBehalf:
    """Acts for one session. `uid`, `gid`: its user, None where it is the agent's own. `writable`: the roots of the
    trees that it may write to. `reachable`: further sockets that it may connect to, as resolved paths. `patience`: how
    long its connections may wait."""

    def __init__(
        self, uid: int | None, gid: int | None, *, writable: Sequence[str], reachable: Sequence[str] = ()
    ) -> None:
        self.patience = Patience()
        self._uid = uid
        self._gid = gid
        self._writable = tuple(os.path.realpath(root) for root in writable if root != "/")
        self._reachable = frozenset(os.path.realpath(path) for path in reachable)
        self._children: OrderedDict[int, int] = OrderedDict()
        self._rules: landlock.Ruleset | None = None
        if landlock.abi() >= 1:
            self._rules = landlock.Ruleset(fs=landlock.Fs.MAKE_SOCK)
            for root in self._writable:
                with suppress(OSError):  # not there: nothing to write in
                    self._rules.allow_path(root, landlock.Fs.MAKE_SOCK)

    def connect(self, sock: socket.socket, path: bytes, task: Task) -> Outcome:
        """Connect to the socket at `path`, as the task sees it."""

        def act() -> Outcome:
            found = os.open(path, _O_PATH)
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                return Outcome(errno.ECONNREFUSED)
            real = _path_of(found)
            if not _is_here(found) or (real not in self._reachable and not self._may_write(real)):
                return Outcome(errno.EACCES, real)
            sock.connect(f"/proc/self/fd/{found}")
            return Outcome(0)

        with self.patience.hurried(sock):
            return self._in_child(act, task)

    def connect_abstract(self, sock: socket.socket, raw: bytes, task: Task) -> Outcome:
        """Connect to an abstract name; whose it is, the caller knows."""
        with self.patience.hurried(sock):
            return self._in_child(lambda: _call("connect", sock, raw), task)

    def bind(self, sock: socket.socket, path: bytes, raw: bytes, task: Task) -> Outcome:
        """Bind to `path` (empty: an abstract name), which the address `raw` holds."""
        umask = task.umask()

        def act() -> Outcome:
            if path:
                parent, _, name = path.rpartition(b"/")
                directory = os.open(parent or (b"/" if path.startswith(b"/") else b"."), _O_PATH | os.O_DIRECTORY)
                real = f"{_path_of(directory).rstrip('/')}/{readable(name)}"
                if not _is_here(directory) or not self._may_write(real):
                    return Outcome(errno.EACCES, real)
                if self._rules is not None:
                    process.set_no_new_privs()
                    self._rules.restrict_self()
                os.umask(umask)
            return _call("bind", sock, raw)

        return self._in_child(act, task)

    def listen(self, sock: socket.socket, backlog: int, task: Task) -> Outcome:
        """Listen: the user of this moment is what SO_PEERCRED shows to clients (unix(7))."""

        def act() -> Outcome:
            sock.listen(backlog)
            return Outcome(0)

        return self._in_child(act, task)

    def behind(self, pid: int) -> int:
        """The session's process that a child acted for, where `pid` was one of the last; else `pid` itself."""
        return self._children.get(pid, pid)

    def close(self) -> None:
        if self._rules is not None:
            self._rules.close()

    def _may_write(self, real: str) -> bool:
        return any(covers(root, real) for root in self._writable)

    def _in_child(self, act: Callable[[], Outcome], task: Task) -> Outcome:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            self._become_and(act, task, theirs)
        os.close(theirs)
        self._children[child] = task.identity.tgid
        if len(self._children) > REMEMBERED:
            self._children.popitem(last=False)
        try:
            return _result(ours, child)
        finally:
            os.close(ours)
            with suppress(ChildProcessError):  # reaped by the guard's loop
                os.waitpid(child, 0)

    def _become_and(self, act: Callable[[], Outcome], task: Task, answers: int) -> NoReturn:
        try:
            gc.disable()
            signal.alarm(1 + int(PATIENCE_S))  # should the guard end meanwhile
            _enter(task)
            if self._uid is not None and self._gid is not None:
                os.setgroups([])
                os.setresgid(-1, self._gid, -1)
                os.setresuid(-1, self._uid, -1)
            try:
                outcome = act()
            except OSError as error:
                outcome = Outcome(error.errno or errno.EACCES)
            os.write(answers, _RESULT.pack(outcome.error, len(outcome.refused)) + outcome.refused.encode())
        finally:
            os._exit(_FAILED)


def _enter(task: Task) -> None:
    """The task's root, where it is another than ours (CAP_SYS_CHROOT), and its working directory."""
    ours, theirs = os.stat("/"), os.fstat(task.root)  # noqa: PTH116 - in a child, as lean as can be
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        os.fchdir(task.root)
        os.chroot(".")
    os.fchdir(task.cwd)


def _call(name: str, sock: socket.socket, raw: bytes) -> Outcome:
    syscall(name, sock.fileno(), raw, len(raw))
    return Outcome(0)


def _path_of(descriptor: int) -> str:
    return readable(os.readlink(f"/proc/self/fd/{descriptor}".encode()))  # noqa: PTH115 - bytes, of a descriptor


def _is_here(descriptor: int) -> bool:
    """True where the path of what is open leads to it: the kernel shows what lies in another mount namespace (to which
    /proc/PID/root leads) by the path that it has there."""
    opened = os.fstat(descriptor)
    try:
        ours = os.lstat(os.readlink(f"/proc/self/fd/{descriptor}".encode()))  # noqa: PTH115 - in a child, lean
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (opened.st_dev, opened.st_ino)


def _result(answers: int, child: int) -> Outcome:
    poller = select.poll()
    poller.register(answers, select.POLLIN)
    if not poller.poll(PATIENCE_S * 1000):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it still holds the pipe, so the number is its own
        return Outcome(errno.EAGAIN)
    data = os.read(answers, 1 << 14)
    if len(data) < _RESULT.size:
        return Outcome(errno.EACCES)
    error, _ = _RESULT.unpack_from(data)
    return Outcome(error, data[_RESULT.size :].decode("utf-8", "backslashreplace"))
