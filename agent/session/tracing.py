"""Whether execs can be supervised by tracing here, found by doing all of it once to a child that is thrown away.

The child is seized while it still has its rights, gives them up as a session does, and puts the session's own filter on
itself. Then an exec of it must be stopped and readable, fail with the errno that the tracer chose, and another one must
be stopped again behind it, before the new program's first instruction. What is missing of that counts as nothing.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from agent.linux import namespaces, process, ptrace, seccomp
from agent.session.filter import FilterOptions, build

NOBODY = 65534
_NAME = b"/nonexistent/parhelia-trial"
_CHOSEN = 18  # EXDEV, which no exec of a missing file gives
_SELF = "/proc/self/exe"


def attempt(*, user_namespace: bool) -> int:
    """0 where every step came out right, else 1; for a process that is thrown away. `user_namespace`: the traced child
    makes one of its own first, whose owner the tracer then is, and may look at it (user_namespaces(7))."""
    told_read, told_write = os.pipe()
    said_read, said_write = os.pipe()
    child = os.fork()
    if child == 0:
        _be_traced(told_read, said_write, user_namespace)
    try:
        os.read(said_read, 1)
        ptrace.seize(child)
        if user_namespace:
            os.write(told_write, b"t")
            os.read(said_read, 1)
            map_ids(child)
        os.write(told_write, b"t")
        return 0 if _steps(child) else 1
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def map_ids(pid: int) -> None:
    """The identity map for a user namespace (user_namespaces(7)). Raises OSError."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write("0 0 4294967295\n")


def _be_traced(told: int, said: int, user_namespace: bool) -> None:
    try:
        process.set_dumpable(True)  # as after an exec: the launcher is one
        os.write(said, b"r")
        os.read(told, 1)
        if user_namespace:
            namespaces.unshare(namespaces.NEWUSER)
            os.write(said, b"u")
            os.read(told, 1)
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        process.set_no_new_privs()
        seccomp.install(build(FilterOptions(notify_exec=False, trace_exec=True, jail=True)))
        process.set_dumpable(True)
        try:
            os.execve(_NAME, [_NAME], {})  # noqa: S606
        except OSError as error:
            if error.errno != _CHOSEN:
                os._exit(1)
        os.execve(_SELF, ["parhelia-trial"], {})  # noqa: S606
    finally:
        os._exit(1)


def _steps(child: int) -> bool:
    """True where the refused exec, the permitted one and the stop behind it all came, and were readable."""
    eyes = process.session_eyes(None if os.getuid() else NOBODY, None if os.getuid() else NOBODY)
    refused = False
    while (report := ptrace.wait()) is not None and report.tid == child:
        if report.kind is ptrace.Kind.ENDED:
            return False
        if report.kind is ptrace.Kind.EXECUTED:
            with eyes:
                return refused and _looks_like_the_trial(child)
        if report.kind is not ptrace.Kind.CALL:
            ptrace.go_on(child, report.signal if report.kind is ptrace.Kind.SIGNAL else 0)
            continue
        call = ptrace.stopped_call(child)
        if refused:
            ptrace.go_on(child)
            continue
        with eyes:
            if _read(child, call.arguments[0], len(_NAME) + 1) != _NAME + b"\0":
                return False
        ptrace.refuse_call(child, _CHOSEN)
        refused = True
    return False


def _looks_like_the_trial(pid: int) -> bool:
    """What the comparison behind an exec rests on: the command line, the program and the directory that /proc shows."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        shown = file.read()
    here, theirs = os.stat(_SELF), os.stat(f"/proc/{pid}/exe")  # noqa: PTH116
    for name in ("cwd", "root"):
        os.close(os.open(f"/proc/{pid}/{name}", os.O_PATH | os.O_CLOEXEC))
    return shown == b"parhelia-trial\0" and (here.st_dev, here.st_ino) == (theirs.st_dev, theirs.st_ino)


def _read(pid: int, address: int, length: int) -> bytes:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(memory, length, address)
    finally:
        os.close(memory)
