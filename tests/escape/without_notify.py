"""Runs a program as on a kernel without seccomp user notification: a filter with a listener is EINVAL, as in gVisor.

`without_notify [--no-ptrace] PROGRAM [ARG]…`; with the flag nothing can be traced either: execs are not supervised.
"""

from __future__ import annotations

import errno
import os
import sys

from agent.linux import bpf, seccomp
from agent.linux.syscalls import number
from tests.escape.runtime import CHECKOUT, Case, Host


class HostWithoutNotify(Host):
    """Sessions on this machine, whose agent is refused a seccomp listener: their execs are traced."""

    flags: tuple[str, ...] = ()

    def command(self, case: Case) -> list[str]:
        without = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "tests.escape.without_notify"]
        return [*without, *self.flags, "/usr/bin/env", "-u", "PYTHONPATH", *super().command(case)]


class HostUnsupervised(HostWithoutNotify):
    """Sessions on this machine whose execs nobody can stop."""

    flags = ("--no-ptrace",)


if __name__ == "__main__":
    program = [argument for argument in sys.argv[1:] if argument != "--no-ptrace"]
    ptrace_call = number("ptrace")
    assert ptrace_call is not None
    if program != sys.argv[1:]:
        refusal = [bpf.ret(seccomp.RET_ERRNO | errno.EPERM), bpf.Label("allow"), bpf.ret(seccomp.RET_ALLOW)]
        no_ptrace = [bpf.load(bpf.NR_OFFSET), bpf.jump_equal(ptrace_call, no="allow"), *refusal]
        seccomp.install(bpf.assemble(no_ptrace))
    seccomp_call = number("seccomp")
    assert seccomp_call is not None
    seccomp.install(
        bpf.assemble(
            [
                bpf.load(bpf.NR_OFFSET),
                bpf.jump_equal(seccomp_call, no="allow"),
                bpf.load(bpf.argument(1)),
                bpf.mask(seccomp.FLAG_NEW_LISTENER),
                bpf.jump_equal(0, yes="allow"),
                bpf.ret(seccomp.RET_ERRNO | errno.EINVAL),
                bpf.Label("allow"),
                bpf.ret(seccomp.RET_ALLOW),
            ]
        )
    )
    os.execv(program[0], program)
