"""Runs a program as on a kernel without seccomp user notification: a filter with a listener is EINVAL, as in gVisor."""

from __future__ import annotations

import errno
import os
import sys

from agent.linux import bpf, seccomp
from agent.linux.syscalls import number
from tests.escape.runtime import CHECKOUT, Case, Host


class HostWithoutNotify(Host):
    """Sessions on this machine, whose agent is refused a seccomp listener: their execs are traced."""

    def command(self, case: Case) -> list[str]:
        without = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "tests.escape.without_notify"]
        return [*without, "/usr/bin/env", "-u", "PYTHONPATH", *super().command(case)]


if __name__ == "__main__":
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
    os.execv(sys.argv[1], sys.argv[1:])
