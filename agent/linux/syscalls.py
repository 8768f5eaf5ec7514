"""System call numbers of the two supported machines, and the raw call.

One table, one place: the seccomp filter is built for either machine from it, and every module beside this one calls
through `syscall`. Numbers are from the kernel's own headers: x86-64 from arch/x86/entry/syscalls/syscall_64.tbl
(``asm/unistd_64.h``), aarch64 from include/uapi/asm-generic/unistd.h. None: the machine has no such call.
"""

from __future__ import annotations

import ctypes
import os
import platform
from enum import StrEnum
from functools import cache


class Arch(StrEnum):
    """A machine, named as `platform.machine()` names it."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


AUDIT_ARCH = {Arch.X86_64: 0xC000003E, Arch.AARCH64: 0xC00000B7}
"""What seccomp_data.arch holds: EM_X86_64 (62) and EM_AARCH64 (183) | 64BIT | LE, from linux/audit.h."""

NEWEST_REVIEWED = 469
"""file_setattr of Linux 6.17, still the newest of 6.18: the highest number whose meaning was looked at for this table
(same on both machines)."""

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "acct": (163, 89),
    "add_key": (248, 217),
    "arch_prctl": (158, None),
    "bind": (49, 200),
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "chmod": (90, None),
    "chown": (92, None),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "connect": (42, 203),
    "creat": (85, None),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchownat": (260, 54),
    "file_setattr": (469, 469),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, None),
    "getpid": (39, 172),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_set": (251, 30),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "lchown": (94, None),
    "link": (86, None),
    "linkat": (265, 37),
    "listen": (50, 201),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "migrate_pages": (256, 238),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open": (2, None),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "request_key": (249, 218),
    "rmdir": (84, None),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "seccomp": (317, 277),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "setfsgid": (123, 152),
    "setfsuid": (122, 151),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "setsockopt": (54, 208),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "statx": (332, 291),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "syslog": (103, 116),
    "truncate": (76, 45),
    "umount2": (166, 39),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
}

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


@cache
def native() -> Arch:
    """The machine this process runs on. Raises OSError where it is neither of the two."""
    machine = platform.machine()
    try:
        return Arch(machine)
    except ValueError:
        raise OSError(f"machine {machine!r} is not supported: {', '.join(Arch)} are") from None


def number(name: str, arch: Arch | None = None) -> int | None:
    """The call's number on `arch` (default: this machine), None where the machine has no such call.

    Raises KeyError for a name that is not in the table.
    """
    x86_64, aarch64 = NUMBERS[name]
    return x86_64 if (arch or native()) is Arch.X86_64 else aarch64


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel. Raises OSError with the kernel's errno (ENOSYS where this machine has no such call).

    Integers go as 64-bit words (negative ones sign-extended), buffers as pointers, None as NULL. The GIL is released.
    """
    nr = number(name)
    if nr is None:
        return _fail(name, 38)  # ENOSYS, asm-generic/errno.h
    words = [
        ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) if isinstance(a, bytes) else a for a in arguments
    ]
    result: int = _LIBC.syscall(ctypes.c_long(nr), *words)
    if result == -1:
        return _fail(name, ctypes.get_errno())
    return result


def _fail(name: str, errno: int) -> int:
    raise OSError(errno, f"{name}: {os.strerror(errno)}")
