"""Tracing other tasks: attach, wait for their stops, read a stopped system call, skip it, let the task go on.

Numbers are from linux/ptrace.h, linux/wait.h and asm/user_64.h (x86-64; no other machine is supported); behaviour from
ptrace(2) and wait(2). Rules of the kernel's: a task is traced by one *thread*, and only that thread may ask anything of
it; when that thread ends, whatever it traced is killed (PTRACE_O_EXITKILL). Everything raises OSError with the kernel's
errno; ESRCH (ProcessLookupError): the task is gone, or not stopped.
"""

from __future__ import annotations

import ctypes
import os
import struct
from enum import Enum, IntFlag

from agent.linux.notify import Notification
from agent.linux.syscalls import AUDIT_ARCH, Arch, native, syscall
from agent.values import dataclass

CONT = 7
GETREGSET = 0x4204
SETREGSET = 0x4205
SEIZE = 0x4206
LISTEN = 0x4208
NT_PRSTATUS = 1  # linux/elf.h

WALL = 0x40000000  # __WALL: threads and clones as well as what was forked
WNOTHREAD = 0x20000000  # __WNOTHREAD: only what the calling thread traces or has started, not its siblings' children

_REGISTERS = struct.Struct("=27Q")  # struct user_regs_struct
_R10, _R9, _R8, _RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _RIP = 7, 8, 9, 10, 12, 13, 14, 15, 16
_NO_CALL = (1 << 64) - 1  # the number that skips the call and leaves its result alone (seccomp(2), SECCOMP_RET_TRACE)
_STOPPING = frozenset({19, 20, 21, 22})  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU


class Option(IntFlag):
    """PTRACE_O_*: which events stop a task, and what becomes of it when the tracer ends."""

    FORK = 1 << 1
    VFORK = 1 << 2
    CLONE = 1 << 3
    EXEC = 1 << 4
    SECCOMP = 1 << 7
    EXITKILL = 1 << 20


FOLLOW = Option.FORK | Option.VFORK | Option.CLONE | Option.EXEC | Option.SECCOMP | Option.EXITKILL
"""New tasks are traced before they run; execs and what a filter answers RET_TRACE to stop; nothing outlives the
tracer."""

_EVENT_FORK, _EVENT_CLONE, _EVENT_EXEC, _EVENT_SECCOMP, _EVENT_STOP = 1, 3, 4, 7, 128  # PTRACE_EVENT_*


class Kind(Enum):
    """What a report says of a task."""

    ENDED = "ended"
    NEW = "new"  # it has started a task, or is one, which is traced
    EXECUTED = "executed"  # another program is loaded, and has not run yet
    CALL = "call"  # a system call that the filter answered with RET_TRACE
    GROUP_STOP = "group-stop"  # stopped by a signal such as SIGTSTP, until SIGCONT
    SIGNAL = "signal"  # a signal is about to be delivered
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Report:
    """One task's stop or end. `status` as of wait(2); `signal` for SIGNAL and GROUP_STOP."""

    tid: int
    kind: Kind
    status: int
    signal: int = 0


class _Vector(ctypes.Structure):
    """struct iovec of linux/uio.h."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def seize(pid: int, options: Option = FOLLOW) -> None:
    """Trace `pid` from this thread, without stopping it. Raises PermissionError where the kernel refuses."""
    _ptrace(SEIZE, pid, 0, options)


def wait() -> Report | None:
    """Block until a task of this thread's has something to report; None where it traces nothing any more.

    With nothing but tasks that this thread traces: other threads' children stay theirs. But a wait(2) of theirs for
    *any* child takes reports of tasks whose parent this process is.
    """
    try:
        tid, status = os.waitpid(-1, WALL | WNOTHREAD)
    except ChildProcessError:
        return None
    return report(tid, status)


def report(tid: int, status: int) -> Report:
    """What a status of wait(2) says of a task that was seized."""
    if not os.WIFSTOPPED(status):
        return Report(tid, Kind.ENDED, status)
    signal, event = os.WSTOPSIG(status), status >> 16
    if event == 0:
        return Report(tid, Kind.SIGNAL, status, signal)
    if event == _EVENT_SECCOMP:
        return Report(tid, Kind.CALL, status)
    if event == _EVENT_EXEC:
        return Report(tid, Kind.EXECUTED, status)
    if _EVENT_FORK <= event <= _EVENT_CLONE:
        return Report(tid, Kind.NEW, status)
    if event == _EVENT_STOP:
        return Report(tid, Kind.GROUP_STOP if signal in _STOPPING else Kind.NEW, status, signal)
    return Report(tid, Kind.UNKNOWN, status)


def go_on(tid: int, signal: int = 0) -> bool:
    """Let a stopped task run, and give it `signal` where that is not 0. False: it is gone."""
    try:
        _ptrace(CONT, tid, 0, signal)
    except ProcessLookupError:
        return False
    return True


def stay_stopped(tid: int) -> bool:
    """Leave a task in its group-stop; the end of that is reported. False: it is gone."""
    try:
        _ptrace(LISTEN, tid, 0, 0)
    except ProcessLookupError:
        return False
    return True


def stopped_call(tid: int) -> Notification:
    """The system call at which a task reported CALL, as the notify ring would have it; its `id` is the task's."""
    registers = _REGISTERS.unpack(_read(tid))
    arguments = tuple(registers[place] for place in (_RDI, _RSI, _RDX, _R10, _R8, _R9))
    first, second, third, fourth, fifth, sixth = arguments
    return Notification(
        id=tid,
        tid=tid,
        number=registers[_ORIG_RAX] & 0xFFFFFFFF,
        arch=AUDIT_ARCH[Arch.X86_64],
        instruction_pointer=registers[_RIP],
        arguments=(first, second, third, fourth, fifth, sixth),
    )


def refuse_call(tid: int, error: int) -> bool:
    """Let that call fail with `error` (positive), without being run, and the task go on. False: it is gone."""
    try:
        registers = list(_REGISTERS.unpack(_read(tid)))
        registers[_ORIG_RAX] = _NO_CALL
        registers[_RAX] = (1 << 64) - error
        _registers(SETREGSET, tid, ctypes.create_string_buffer(_REGISTERS.pack(*registers), _REGISTERS.size))
    except ProcessLookupError:
        return False
    return go_on(tid)


def _read(tid: int) -> bytes:
    if native() is not Arch.X86_64:
        raise OSError(38, "tracing system calls is for x86-64 only")
    buffer = ctypes.create_string_buffer(_REGISTERS.size)
    if _registers(GETREGSET, tid, buffer) != _REGISTERS.size:
        raise OSError(22, "the registers of a task of another machine word")
    return buffer.raw


def _registers(request: int, tid: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """The number of bytes that were moved."""
    vector = _Vector(ctypes.addressof(buffer), len(buffer))
    _ptrace(request, tid, NT_PRSTATUS, ctypes.addressof(vector))
    return int(vector.length)


def _ptrace(request: int, tid: int, address: int, data: int) -> None:
    syscall("ptrace", request, tid, address, data)
