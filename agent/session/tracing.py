"""Whether execs can be supervised by tracing here, found by doing all of it once to a child that is thrown away.

The child is traced as a session is (agent.session.tracer), from while it still has its rights; it gives them up as a
session does, and puts the session's own filter on itself. Then an exec of it must be stopped and readable for a process
that is not the tracer, as the guard is not; it must fail with the errno that was answered, and another one must be
stopped again behind it, before the new program's first instruction. What is missing of that counts as nothing.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from agent.linux import namespaces, process, seccomp
from agent.session.filter import FilterOptions, build
from agent.session.tracer import GO_ON, LONGEST, Asks, Question, answer, greet, pair, split

NOBODY = 65534
_NAME = b"/nonexistent/parhelia-trial"
_CHOSEN = 18  # EXDEV, which no exec of a missing file gives
_SELF = "/proc/self/exe"
_SECONDS = 10.0


def attempt(*, user_namespace: bool) -> int:
    """0 where every step came out right, else 1; for a process that is thrown away. `user_namespace`: the traced child
    makes one of its own first, whose owner this process then is, and may look at it (user_namespaces(7))."""
    ours, tracers = pair()
    told_read, told_write = os.pipe()
    said_read, said_write = os.pipe()
    child = os.fork()
    if child == 0:
        ours.close()
        os.close(said_read)
        _be_traced(tracers, told_read, said_write, user_namespace)
    tracers.close()
    os.close(said_write)
    try:
        with ours:
            ours.settimeout(_SECONDS)
            greet(ours, 1)
            if user_namespace:
                map_ids(int(os.read(said_read, 16) or 0))
                os.write(told_write, b"t")
            return 0 if _steps(ours) else 1
    finally:
        os.waitpid(child, 0)  # the tracer: the end of the socket is its own, and the traced child's


def map_ids(pid: int) -> None:
    """The identity map for a user namespace (user_namespaces(7)). Raises OSError."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write("0 0 4294967295\n")


def _be_traced(tracers: socket.socket, told: int, said: int, user_namespace: bool) -> NoReturn:
    try:
        process.set_dumpable(True)  # as after an exec: the launcher is one
        split(tracers)
        if user_namespace:
            namespaces.unshare(namespaces.NEWUSER)
            os.write(said, b"%d" % os.getpid())
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


def _steps(tracer: socket.socket) -> bool:
    """True where the refused exec, the permitted one and the stop behind it all came, and were readable."""
    eyes = process.session_eyes(None if os.getuid() else NOBODY, None if os.getuid() else NOBODY)
    first = _next(tracer)
    if first is None or first.what is not Asks.CALL:
        return False
    with eyes:
        if _read(first.stopped.tid, first.stopped.arguments[0], len(_NAME) + 1) != _NAME + b"\0":
            return False
    answer(tracer, first, _CHOSEN)
    second = _next(tracer)
    if second is None or second.what is not Asks.CALL:
        return False
    answer(tracer, second, GO_ON)
    third = _next(tracer)
    if third is None or third.what is not Asks.LOADED:
        return False
    with eyes:
        return _looks_like_the_trial(third.stopped.tid)


def _next(tracer: socket.socket) -> Question | None:
    """None where the tracer has ended, since there was nothing left to trace."""
    data = tracer.recv(LONGEST)
    return Question.parse(data) if data else None


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
