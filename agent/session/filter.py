"""The session's seccomp filter: one table, compiled for the machine it runs on.

Rules: `agent.session.filter_table` says what is refused and why; this says it in BPF. Calls of a foreign machine word
(i386, x32) kill; numbers newer than the table was reviewed for answer ENOSYS, as they would on an older kernel, which
programs expect.

The filter is a wall only together with the rest: Landlock knows TCP ports but leaks through MPTCP, UDP and TCP Fast
Open, which are closed here; separate uids and the kernel's own checks do most of what SHARED_UID does.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.linux import bpf
from agent.linux.seccomp import RET_ALLOW, RET_KILL_PROCESS
from agent.linux.syscalls import AUDIT_ARCH, NEWEST_REVIEWED, Arch, native, number
from agent.session.filter_table import ENOSYS, TABLE, Entry, Only, Op, Test
from agent.values import dataclass

X32_BIT = 0x40000000  # __X32_SYSCALL_BIT, asm/unistd.h
NO_CALL = 0xFFFFFFFF  # syscall(-1): what a tracer writes to skip a call; the kernel answers ENOSYS


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """`notify_exec`: execs go to a supervisor. `trace_exec`: they go to the session's tracer. `jail`: own network
    namespace. `shared_uid`: one user with the agent. `notify_connect`: the supervisor also makes and connects the
    sockets (not in a jail, which needs none of it). `notify_writes`: calls that change a file by its path go to the
    supervisor, too. All three `notify_` share one listener."""

    notify_exec: bool
    jail: bool
    shared_uid: bool = True
    notify_connect: bool = False
    trace_exec: bool = False
    notify_writes: bool = False


def entries(options: FilterOptions) -> tuple[Entry, ...]:
    """The table as it applies with `options`, in order."""
    held = {
        Only.ALWAYS: True,
        Only.JAIL: options.jail,
        Only.NO_JAIL: not options.jail,
        Only.DECIDE_EXEC: options.notify_exec or options.trace_exec,
        Only.NOTIFY_EXEC: options.notify_exec,
        Only.TRACE_EXEC: options.trace_exec,
        Only.TRACE_SOCKETS: options.trace_exec and options.jail,
        Only.NOTIFY_WRITES: options.notify_writes,
        Only.NOTIFY_CONNECT: options.notify_connect,
        Only.SHARED_UID: options.shared_uid,
    }
    return tuple(entry for entry in TABLE if held[entry.only])


def build(options: FilterOptions, arch: Arch | None = None) -> bytes:
    """The filter for `arch` (default: this machine), ready for `agent.linux.seccomp.install`."""
    arch = arch or native()
    calls: dict[int, list[Entry]] = {}
    for entry in entries(options):
        for name in entry.calls:
            nr = number(name, arch)
            if nr is not None:
                calls.setdefault(nr, []).append(entry)
    return bpf.assemble([*_prologue(arch), *_search(sorted(calls)), *_blocks(calls)])


type _Source = Iterator[bpf.Instruction | bpf.Label]


def _prologue(arch: Arch) -> _Source:
    yield bpf.load(bpf.ARCH_OFFSET)
    yield bpf.jump_equal(AUDIT_ARCH[arch], no="foreign")
    yield bpf.load(bpf.NR_OFFSET)
    yield bpf.jump_greater(NEWEST_REVIEWED, no="known")
    yield bpf.jump_equal(NO_CALL, yes="unknown")
    if arch is Arch.X86_64:
        yield bpf.jump_at_least(X32_BIT, yes="foreign")
    yield bpf.Label("unknown")
    yield bpf.ret(ENOSYS)
    yield bpf.Label("foreign")
    yield bpf.ret(RET_KILL_PROCESS)
    yield bpf.Label("known")


def _search(numbers: list[int]) -> _Source:
    """Binary search to the call's block: interpreters of BPF (gVisor) pay per instruction on every call."""
    if len(numbers) <= 3:
        for nr in numbers:
            yield bpf.jump_equal(nr, no=f"not {nr}")
            yield bpf.jump(f"call {nr}")
            yield bpf.Label(f"not {nr}")
        yield bpf.ret(RET_ALLOW)
        return
    middle = len(numbers) // 2
    yield bpf.jump_at_least(numbers[middle], no=f"below {numbers[middle]}")
    yield bpf.jump(f"from {numbers[middle]}")
    yield bpf.Label(f"below {numbers[middle]}")
    yield from _search(numbers[:middle])
    yield bpf.Label(f"from {numbers[middle]}")
    yield from _search(numbers[middle:])


def _blocks(calls: dict[int, list[Entry]]) -> _Source:
    for nr, found in sorted(calls.items()):
        yield bpf.Label(f"call {nr}")
        for index, entry in enumerate(found):
            after = f"call {nr}, after entry {index}"
            for place, test in enumerate(entry.tests):
                yield from _test(test, after, f"call {nr}, entry {index}, test {place} holds")
            yield bpf.ret(entry.action)
            yield bpf.Label(after)
        yield bpf.ret(RET_ALLOW)


def _test(test: Test, otherwise: str, holds: str) -> _Source:
    yield bpf.load(bpf.argument(test.argument))
    if test.mask != 0xFFFFFFFF:
        yield bpf.mask(test.mask)
    if test.op is Op.EQUAL:
        yield bpf.jump_equal(test.value, no=otherwise)
    elif test.op is Op.DIFFERS:
        yield bpf.jump_equal(test.value, yes=otherwise)
    else:
        yield bpf.jump_equal(0, no=holds)
        yield bpf.load(bpf.argument(test.argument, high=True))
        yield bpf.jump_equal(0, yes=otherwise)
        yield bpf.Label(holds)
