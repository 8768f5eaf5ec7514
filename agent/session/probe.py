"""Finding out what this machine offers, by trying it in a child that is thrown away.

A namespace counts only if it isolates: under gVisor's host network a new network namespace is granted and changes
nothing, so the child must fail to reach a listener of the parent's. Nothing is assumed from names or versions.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from agent.linux import landlock, namespaces, seccomp
from agent.session.levels import Offer

PROBE_SECONDS = 1.0


def probe() -> Offer:
    """What is to be had here and now. Leaves nothing behind."""
    root = os.geteuid() == 0
    jail, why = _jail(root)
    return Offer(
        root=root,
        jail=jail,
        mounts=root and _succeeds(_mounts),
        landlock=landlock.abi(),
        seccomp=seccomp.filter_available(),
        notify=seccomp.notification_available(),
        jail_why=why,
    )


def _jail(root: bool) -> tuple[str | None, str]:
    with socket.socket() as canary:
        canary.bind(("127.0.0.1", 0))
        canary.listen(1)
        port = canary.getsockname()[1]
        if root and _child(lambda: _isolates(namespaces.NEWNET, port)) == ISOLATED:
            return "root", ""
        outcome = _child(lambda: _isolates(namespaces.NEWUSER | namespaces.NEWNET, port))
    if outcome == ISOLATED and root:
        return "user", ""
    if outcome == OPEN:
        return None, "a new network namespace does not isolate here"
    return None, "network namespaces are not permitted here"


ISOLATED, OPEN, REFUSED = 0, 3, 4


def _isolates(flags: int, port: int) -> int:
    try:
        namespaces.unshare(flags)
        namespaces.bring_loopback_up()
    except OSError:
        return REFUSED
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS).close()
    except OSError:
        return ISOLATED
    return OPEN


def _mounts() -> int:
    namespaces.unshare(namespaces.NEWNS)
    namespaces.make_mounts_private()
    namespaces.tmpfs("/tmp", size="4k")  # noqa: S108
    return 0


def _succeeds(trial: Callable[[], int]) -> bool:
    return _child(trial) == 0


def _child(trial: Callable[[], int]) -> int:
    """Run `trial` in a forked child; its result, REFUSED where it raised."""
    pid = os.fork()
    if pid == 0:
        status = REFUSED
        try:
            status = trial()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
