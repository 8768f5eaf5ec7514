"""docs/seccomp.md, from the table of the filter: ``python -m tests.session.seccomp_page`` writes it.

Rules: every entry once, in the table's order; a call that a machine does not have is said to be missing there.
"""

from __future__ import annotations

import errno
from pathlib import Path

from agent.linux import seccomp
from agent.linux.syscalls import NEWEST_REVIEWED, Arch, number
from agent.session.filter_table import TABLE, Entry, Only, Op, Test

DOCUMENT = Path(__file__).parents[2] / "docs" / "seccomp.md"
WHERE = {
    Only.ALWAYS: "always",
    Only.NO_JAIL: "no network namespace",
    Only.JAIL: "network namespace",
    Only.DECIDE_EXEC: "execs are decided",
    Only.NOTIFY_EXEC: "execs are notified",
    Only.TRACE_EXEC: "execs are traced",
    Only.TRACE_SOCKETS: "execs are traced, network namespace",
    Only.NOTIFY_WRITES: "`paths.audit: writes`",
    Only.NOTIFY_CONNECT: "the guard connects",
    Only.SHARED_UID: "one uid with the agent",
}
ANSWERS = {
    seccomp.RET_ALLOW: "allowed",
    seccomp.RET_USER_NOTIF: "asked of the guard",
    seccomp.RET_TRACE: "asked of the tracer",
}
INTRODUCTION = f"""\
# The session's seccomp filter

Generated from `agent/session/filter_table.py` by `python -m tests.session.seccomp_page`; `tests/test_docs.py` keeps it
equal.

Before the table is looked at: a call by another machine's convention kills the process (i386 by `int 0x80`, x32); a
number above {NEWEST_REVIEWED} (file_setattr of Linux 6.17, the newest of 6.18) answers ENOSYS, as on an older kernel,
and so do x32's old numbers 512 to 547. Then the first row of a call whose conditions all hold decides; a call without
such a row is allowed. Where the kernel takes an int, only the low 32 bits are looked at, as the kernel does.

The filter is one wall of several: Landlock, namespaces, separate uids and the kernel's own checks stand behind it. What
it refuses leaves no line in the log, but for what is asked of the guard.

## Entries

| calls | where | if | answer | because |
|---|---|---|---|---|
"""
NUMBERS_TEXT = """
## Numbers

From the kernel's own tables: `arch/x86/entry/syscalls/syscall_64.tbl`, and `scripts/syscall.tbl` for arm64.

| call | x86-64 | arm64 |
|---|---|---|
"""


def render() -> str:
    """The whole page."""
    rows = "".join(_row(entry) for entry in TABLE)
    names = sorted({name for entry in TABLE for name in entry.calls})
    numbers = "".join(f"| {name} | {_nr(name, Arch.X86_64)} | {_nr(name, Arch.AARCH64)} |\n" for name in names)
    return INTRODUCTION + rows + NUMBERS_TEXT + numbers


def _row(entry: Entry) -> str:
    tests = " and ".join(_test(test) for test in entry.tests) or "-"
    calls = ", ".join(entry.calls)
    return f"| {calls} | {WHERE[entry.only]} | {tests} | {_answer(entry.action)} | {entry.reason} |\n"


def _answer(action: int) -> str:
    if action in ANSWERS:
        return ANSWERS[action]
    assert action & ~0xFFFF == seccomp.RET_ERRNO
    return errno.errorcode[action & 0xFFFF]


def _test(test: Test) -> str:
    if test.op is Op.NOT_NULL:
        return f"argument {test.argument} is given"
    masked = f"argument {test.argument}" + ("" if test.mask == 0xFFFFFFFF else f" & {test.mask:#x}")
    return f"{masked} is {'' if test.op is Op.EQUAL else 'not '}{test.value if test.value < 10 else hex(test.value)}"


def _nr(name: str, arch: Arch) -> str:
    found = number(name, arch)
    return "none" if found is None else str(found)


if __name__ == "__main__":
    DOCUMENT.write_text(render())
