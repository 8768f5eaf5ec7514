"""The table of numbers against the kernel headers of this machine, and the raw call."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from agent.linux.syscalls import NEWEST_REVIEWED, NUMBERS, Arch, native, number, syscall
from tests.conftest import require

X86_64_HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
GENERIC_HEADER = Path("/usr/include/asm-generic/unistd.h")
NEWER_THAN_DEBIAN_12 = {
    "fchmodat2": 452,
    "setxattrat": 463,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_setattr": 469,
}
OLD_OF_X86_64 = {
    *(
        "arch_prctl",
        "ioperm",
        "iopl",
        "open",
        "creat",
        "unlink",
        "rmdir",
        "rename",
        "link",
        "symlink",
        "mkdir",
        "mknod",
    ),
    *("chmod", "chown", "lchown", "utime", "utimes", "futimesat"),
}
"""What the generic table, aarch64's, never had."""


def numbers_of(header: Path) -> dict[str, int]:
    require(header.exists(), f"{header} (linux-libc-dev)")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


@pytest.mark.parametrize(("arch", "header"), [(Arch.X86_64, X86_64_HEADER), (Arch.AARCH64, GENERIC_HEADER)])
def test_every_number_is_the_kernel_headers(arch: Arch, header: Path) -> None:
    known = NEWER_THAN_DEBIAN_12 | numbers_of(header)
    for name in NUMBERS:
        if arch is Arch.AARCH64 and name in OLD_OF_X86_64:
            assert name not in known
            assert number(name, arch) is None
        else:
            assert number(name, arch) == known[name], name


def test_no_two_calls_share_a_number() -> None:
    for arch in Arch:
        taken = [number(name, arch) for name in NUMBERS if number(name, arch) is not None]
        assert len(taken) == len(set(taken))
        assert max(n for n in taken if n is not None) <= NEWEST_REVIEWED


def test_the_raw_call_reaches_the_kernel() -> None:
    assert syscall("getpid") == os.getpid()


def test_an_error_is_an_oserror_with_the_kernels_errno_and_the_calls_name() -> None:
    with pytest.raises(OSError, match="unshare") as raised:
        syscall("unshare", 1)
    assert raised.value.errno == errno.EINVAL


def test_a_call_that_the_machine_lacks_is_enosys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NUMBERS, "getpid", (None, None))
    with pytest.raises(OSError) as raised:
        syscall("getpid")
    assert raised.value.errno == errno.ENOSYS


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        number("no_such_call", native())
