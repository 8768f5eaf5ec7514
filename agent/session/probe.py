"""Finding out what this machine offers, by trying it in a child that is thrown away.

A namespace counts only if it isolates: under gVisor's host network a new network namespace is granted and changes
nothing, so the child must fail to reach a listener of the parent's. How much can be captured in it is found by
capturing (agent.session.jail). Nothing is assumed from names or versions.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (children use it, and another thread may be importing it at the fork)
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Callable

from agent.linux import fanotify, landlock, namespaces, seccomp
from agent.session import pids, tracing
from agent.session.doors import Capture
from agent.session.jail import best_capture
from agent.session.levels import Offer

PROBE_SECONDS = 1.0
TRIAL_SECONDS = 10.0


def probe() -> Offer:
    """What is to be had here and now. Leaves nothing behind."""
    root = os.geteuid() == 0
    jail, capture, why = _jail(root)
    notify = seccomp.notification_available()
    trace = None if notify else _trace(jail, root)
    mounts, reads = _mounts(jail, trace) if root else (False, False)
    return Offer(
        root=root,
        jail=jail,
        mounts=mounts,
        pids=_pids(jail, trace) if root else None,
        landlock=landlock.abi(),
        seccomp=seccomp.filter_available(),
        notify=notify,
        trace=trace,
        jail_why=why,
        capture=capture,
        reads=reads,
        connect=jail is None and seccomp.socket_making_available(),
    )


def account_limits(uid: int) -> bool:
    """True where RLIMIT_NPROC of an account with this uid holds: a second process of it is refused. Needs root."""

    def trial() -> int:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        os.setresuid(uid, uid, uid)
        try:
            if os.fork() == 0:
                os._exit(0)
        except BlockingIOError:  # EAGAIN, fork(2)
            return 0
        return 1

    return _succeeds(trial)


def _jail(root: bool) -> tuple[str | None, Capture, str]:
    with socket.socket() as canary:
        canary.bind(("127.0.0.1", 0))
        canary.listen(1)
        port = canary.getsockname()[1]
        outcome = _child(lambda: _isolates(namespaces.NEWNET, port)) if root else REFUSED
        if outcome in ISOLATED:
            return "root", ISOLATED[outcome], ""
        outcome = _child(lambda: _isolates(namespaces.NEWUSER | namespaces.NEWNET, port))
    if outcome in ISOLATED and root:
        return "user", ISOLATED[outcome], ""
    if outcome == OPEN:
        return None, Capture.NONE, "a new network namespace does not isolate here"
    return None, Capture.NONE, "network namespaces are not permitted here"


def _trace(jail: str | None, root: bool) -> str | None:
    """How execs can be supervised by tracing: "plain", or "user", in a user namespace of the session's (which is also
    there where its network is had through one)."""
    if jail != "user" and _succeeds(lambda: tracing.attempt(user_namespace=False)):
        return "plain"
    if jail != "root" and root and _succeeds(lambda: tracing.attempt(user_namespace=True)):
        return "user"
    return None


def _pids(jail: str | None, trace: str | None) -> str | None:
    """How a process namespace of the session's is to be had: with the rights that the agent has, or in the user
    namespace that its network or its supervision takes anyway."""
    if "user" in (jail, trace):
        return "user" if _succeeds(lambda: pids.attempt(_own_user_namespace)) else None
    return "root" if _succeeds(lambda: pids.attempt(lambda: None)) else None


def _own_user_namespace() -> None:
    """Enter one with the identity map, which the parent in the old one writes (user_namespaces(7))."""
    unshared, tell = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.read(unshared, 1)
            tracing.map_ids(os.getppid())
            status = 0
        finally:
            os._exit(status)
    namespaces.unshare(namespaces.NEWUSER)
    os.write(tell, b"u")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise OSError("the identity map was refused")


OPEN, REFUSED = 3, 4
ISOLATED = dict(enumerate(Capture, 10))
"""A child's status -> what could be captured in the namespace that isolated it."""


def _isolates(flags: int, port: int) -> int:
    try:
        namespaces.unshare(flags)
        namespaces.bring_loopback_up()
    except OSError:
        return REFUSED
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS).close()
    except OSError:
        best = best_capture()
        return next(status for status, capture in ISOLATED.items() if capture is best)
    return OPEN


MOUNTS_ONLY = 5


def _mounts(jail: str | None, trace: str | None) -> tuple[bool, bool]:
    """Whether mounts of the session's own are to be had, with the rights that its namespaces give it; and whether one
    can be asked before files on them are opened."""
    become_owner = _own_user_namespace if "user" in (jail, trace) else lambda: None
    found = _child(lambda: _holds(become_owner))
    return found in (0, MOUNTS_ONLY), found == 0


def _holds(become_owner: Callable[[], None]) -> int:
    """0, or `MOUNTS_ONLY`, where a covering mount covers and a read-only one refuses."""
    become_owner()
    namespaces.unshare(namespaces.NEWNS)
    namespaces.make_mounts_private()
    namespaces.tmpfs("/tmp", size="16k")  # noqa: S108
    place = "/tmp/place"  # noqa: S108
    os.mkdir(place)  # noqa: PTH102
    namespaces.bind(place, place)
    descriptor = os.open(place, os.O_PATH)
    namespaces.make_read_only(descriptor)
    try:
        os.mkdir(f"{place}/new")  # noqa: PTH102
    except OSError as error:
        if error.errno != errno.EROFS:
            return 1
    else:
        return 1
    try:
        fanotify.ask_before_opens(fanotify.group(), place)
    except OSError:
        return MOUNTS_ONLY
    return 0


def _succeeds(trial: Callable[[], int]) -> bool:
    return _child(trial) == 0


def _child(trial: Callable[[], int]) -> int:
    """Run `trial` in a forked child; its result, REFUSED where it raised or has not ended after `TRIAL_SECONDS`:
    another thread may have held a lock at the fork, and the child waits for it without end."""
    pid = os.fork()
    if pid == 0:
        status = REFUSED
        try:
            status = trial()
        finally:
            os._exit(status)
    deadline = time.monotonic() + TRIAL_SECONDS
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return REFUSED
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(found[1])
