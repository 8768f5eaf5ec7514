"""THE table of the session's seccomp filter: which calls it refuses, notifies or lets be, and why.

Rules: the first entry of a system call whose tests all hold decides; a call without such an entry is allowed. Tests
look at the low 32 bits where the kernel takes an int, since it ignores the upper half and an attacker may set it. What
BPF cannot see (memory behind a pointer) is refused as a whole, with ENOSYS where a well-known older call does the same
(clone3, io_uring). `agent.session.filter` compiles it; docs/seccomp.md prints it.
"""

from __future__ import annotations

import errno
from enum import Enum, auto

from agent.linux.seccomp import RET_ALLOW, RET_ERRNO, RET_TRACE, RET_USER_NOTIF
from agent.values import dataclass

ARCH_SET_FS = 0x1002  # asm/prctl.h

CLONE_FS = 0x00000200  # linux/sched.h, as the following
CLONE_FILES = 0x00000400
CLONE_THREAD = 0x00010000
CLONE_UNTRACED = 0x00800000
CLONE_NAMESPACES = (
    0x7E020000  # NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (NEWTIME: unshare, clone3 only)
)

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16  # linux/socket.h
SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_TYPE_MASK = 1, 2, 5, 0xF  # linux/net.h; above: CLOEXEC, NONBLOCK
IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, NETLINK_ROUTE = 0, 6, 17, 41, 0
SOL_SOCKET, SO_BINDTODEVICE, SO_BINDTOIFINDEX = 1, 25, 62  # asm-generic/socket.h
IP_OPTIONS, TCP_FASTOPEN_CONNECT = 4, 30  # linux/in.h, linux/tcp.h
# IPV6_2292PKTOPTIONS, IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS of linux/in6.h
IPV6_ROUTING = (6, 54, 55, 57, 59)
MSG_FASTOPEN = 0x20000000  # linux/socket.h
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h
SET_MODE_FILTER, NEW_LISTENER = 1, 8  # linux/seccomp.h
PRIO_USER, IOPRIO_WHO_USER = 2, 3  # linux/resource.h, linux/ioprio.h
OPENS_TO_WRITE = 0o1103  # asm-generic/fcntl.h: O_ACCMODE, O_CREAT, O_TRUNC (O_TMPFILE without O_RDWR is EINVAL)


class Op(Enum):
    """How a test looks at an argument."""

    EQUAL = auto()  # (low 32 bits & mask) == value
    DIFFERS = auto()  # (low 32 bits & mask) != value
    NOT_NULL = auto()  # any of the 64 bits is set


class Only(Enum):
    """In which filters an entry is."""

    ALWAYS = auto()
    NO_JAIL = auto()  # the session shares a network namespace with something that has a way out
    JAIL = auto()  # a network namespace of its own, without a route out
    DECIDE_EXEC = auto()  # a supervisor decides every exec, by either of these:
    NOTIFY_EXEC = auto()  # through seccomp user notification
    TRACE_EXEC = auto()  # as the tracer of the session
    TRACE_SOCKETS = auto()  # in a jail of a sandbox that may be restored: a restore takes sockets out of it
    NOTIFY_WRITES = auto()  # a supervisor is asked about every call that would change a file by its path
    NOTIFY_CONNECT = auto()  # a supervisor makes the sockets, and connects, binds and listens with them
    SHARED_UID = auto()  # agent and session are the same user, so the kernel's own checks tell them not apart


@dataclass(frozen=True, slots=True)
class Test:
    argument: int
    op: Op
    value: int = 0
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """`action` is what the filter returns (RET_*) for each of `calls` where all of `tests` hold."""

    calls: tuple[str, ...]
    action: int
    reason: str
    tests: tuple[Test, ...] = ()
    only: Only = Only.ALWAYS


def _eq(argument: int, value: int, mask: int = 0xFFFFFFFF) -> Test:
    return Test(argument, Op.EQUAL, value, mask)


def _ne(argument: int, value: int, mask: int = 0xFFFFFFFF) -> Test:
    return Test(argument, Op.DIFFERS, value, mask)


EPERM = RET_ERRNO | errno.EPERM
EACCES = RET_ERRNO | errno.EACCES
ENOSYS = RET_ERRNO | errno.ENOSYS
EAFNOSUPPORT = RET_ERRNO | errno.EAFNOSUPPORT

_MOUNTS = (
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
)
_HOST = (
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff"),
    *("acct", "quotactl", "quotactl_fd", "iopl", "ioperm", "syslog", "open_by_handle_at", "fanotify_init"),
)
_STREAM = _eq(1, SOCK_STREAM, SOCK_TYPE_MASK)


# The supervisor connects with the session's own socket, to addresses of its own choice: a socket must not be able to
# send them elsewhere. Loose source routes and routing headers (ip(7), RFC 8754) need no privilege.
_DETOURS: tuple[Entry, ...] = tuple(
    Entry(("setsockopt",), EPERM, reason, (_eq(1, level), _eq(2, option)), Only.NOTIFY_CONNECT)
    for level, option, reason in (
        (SOL_SOCKET, SO_BINDTODEVICE, "sends what is meant for loopback out of another interface"),
        (SOL_SOCKET, SO_BINDTOIFINDEX, "the same by number"),
        (IPPROTO_IP, IP_OPTIONS, "a source route leads to another host than the address says"),
        (IPPROTO_TCP, TCP_FASTOPEN_CONNECT, "connects with the first write, not with the call that was decided"),
        *((IPPROTO_IPV6, option, "a routing header leads to another host") for option in IPV6_ROUTING),
    )
)
_CONNECTING: tuple[Entry, ...] = (
    Entry(
        ("connect", "bind", "listen"), RET_USER_NOTIF, "made by the supervisor, never as given", (), Only.NOTIFY_CONNECT
    ),
    *_DETOURS,
    *(
        Entry(
            ("socket",),
            RET_USER_NOTIF,
            "made by the supervisor, which keeps a copy to connect it with",
            (_eq(0, family), _eq(1, kind, SOCK_TYPE_MASK), *further),
            Only.NOTIFY_CONNECT,
        )
        for family, kind, further in (
            (AF_UNIX, SOCK_STREAM, ()),
            (AF_UNIX, SOCK_SEQPACKET, ()),
            (AF_INET, SOCK_STREAM, (_eq(2, IPPROTO_IP),)),
            (AF_INET, SOCK_STREAM, (_eq(2, IPPROTO_TCP),)),
            (AF_INET6, SOCK_STREAM, (_eq(2, IPPROTO_IP),)),
            (AF_INET6, SOCK_STREAM, (_eq(2, IPPROTO_TCP),)),
        )
    ),
    Entry(
        ("socket",),
        RET_USER_NOTIF,
        "bound by the supervisor like any other",
        (_eq(0, AF_NETLINK), _eq(2, NETLINK_ROUTE)),
        Only.NOTIFY_CONNECT,
    ),
    *(
        Entry(
            ("socketpair",),
            RET_ALLOW,
            "inside the session",
            (_eq(0, AF_UNIX), _eq(1, kind, SOCK_TYPE_MASK)),
            Only.NOTIFY_CONNECT,
        )
        for kind in (SOCK_STREAM, SOCK_SEQPACKET)
    ),
    Entry(
        ("socket", "socketpair"),
        EACCES,
        "a datagram socket sends to any path without connecting (sendmsg, whose address a filter cannot see)",
        (_eq(0, AF_UNIX),),
        Only.NOTIFY_CONNECT,
    ),
)

_BY_PATH = (
    *("creat", "truncate", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "link", "linkat"),
    *("symlink", "symlinkat", "mkdir", "mkdirat", "mknod", "mknodat", "chmod", "fchmodat", "fchmodat2"),
    *("chown", "lchown", "fchownat", "utime", "utimes", "setxattr", "lsetxattr", "setxattrat"),
    *("removexattr", "lremovexattr", "removexattrat", "file_setattr"),
)
_WRITING: tuple[Entry, ...] = (
    *(
        Entry(
            (name,),
            RET_USER_NOTIF,
            "opens to write, to create or to truncate: what the policy denies is put on record",
            (_ne(flags, 0, OPENS_TO_WRITE),),
            Only.NOTIFY_WRITES,
        )
        for name, flags in (("open", 1), ("openat", 2))
    ),
    Entry(
        ("openat2",), ENOSYS, "its flags are in memory; libc and programs fall back to openat", (), Only.NOTIFY_WRITES
    ),
    Entry(
        _BY_PATH,
        RET_USER_NOTIF,
        "changes a file by its path: what the policy denies is recorded",
        (),
        Only.NOTIFY_WRITES,
    ),
    Entry(
        ("utimensat", "futimesat"),
        RET_USER_NOTIF,
        "the same for times; without a path it changes an open file",
        (Test(1, Op.NOT_NULL),),
        Only.NOTIFY_WRITES,
    ),
)

# agent.enforce.egress.left_behind says why
_LEFT_BEHIND: tuple[Entry, ...] = (
    Entry(
        ("connect", "sendmsg", "sendmmsg", "accept", "accept4"),
        RET_TRACE,
        "after a restore a socket of before is outside of the jail",
        (),
        Only.TRACE_SOCKETS,
    ),
    Entry(("sendto",), RET_TRACE, "the same, where it names an address", (Test(4, Op.NOT_NULL),), Only.TRACE_SOCKETS),
    Entry(
        ("socket",),
        EAFNOSUPPORT,
        "gVisor lists no such sockets: nobody could tell whether one of before a restore is left",
        (_eq(0, AF_INET6), _eq(1, SOCK_DGRAM, SOCK_TYPE_MASK)),
        Only.TRACE_SOCKETS,
    ),
    Entry(
        ("socket",),
        EACCES,
        "the same: ping's",
        (_eq(1, SOCK_DGRAM, SOCK_TYPE_MASK), _eq(0, AF_INET), _ne(2, IPPROTO_IP), _ne(2, IPPROTO_UDP)),
        Only.TRACE_SOCKETS,
    ),
)

TABLE: tuple[Entry, ...] = (
    # --- processes
    Entry(("clone3",), ENOSYS, "its flags are in memory, where a filter cannot see them; libc falls back to clone"),
    Entry(("unshare", "setns"), EPERM, "a namespace of its own gives capabilities in it"),
    Entry(("clone",), EPERM, "the same through clone", (_ne(0, 0, CLONE_NAMESPACES),)),
    Entry(
        ("clone",),
        EPERM,
        "a process that shares its working directory could move another's after the check of its exec",
        (_eq(0, CLONE_FS, CLONE_FS | CLONE_THREAD),),
        Only.DECIDE_EXEC,
    ),
    Entry(
        ("clone",),
        EPERM,
        "a process that the tracer does not follow: its execs would all fail, and it would outlive the tracer",
        (_ne(0, 0, CLONE_UNTRACED),),
        Only.TRACE_EXEC,
    ),
    Entry(
        ("clone",),
        EPERM,
        "a process that shares its descriptors could swap one after the check of a call",
        (_eq(0, CLONE_FILES, CLONE_FILES | CLONE_THREAD),),
        Only.TRACE_SOCKETS,
    ),
    Entry(_MOUNTS, EPERM, "mounts would change what paths mean"),
    Entry(("ptrace",), EPERM, "a tracer changes what was checked, and could trace the agent where it is the same user"),
    Entry(("process_vm_writev",), EPERM, "writes another process's memory after it was checked"),
    Entry(("pidfd_getfd",), EPERM, "takes descriptors out of other processes"),
    Entry(
        ("seccomp",),
        EPERM,
        "a listener of the session's own could answer for the agent",
        (_eq(0, SET_MODE_FILTER), _ne(1, 0, NEW_LISTENER)),
    ),
    Entry(("execve", "execveat"), RET_USER_NOTIF, "every exec is decided", (), Only.NOTIFY_EXEC),
    Entry(("execve", "execveat"), RET_TRACE, "every exec is decided; without the tracer: ENOSYS", (), Only.TRACE_EXEC),
    Entry(
        ("arch_prctl",),
        RET_USER_NOTIF,
        "made by libc before a new program's code: what runs is compared with what was approved",
        (_eq(0, ARCH_SET_FS),),
        Only.NOTIFY_EXEC,
    ),
    # --- files, where writing is audited (paths.audit)
    *_WRITING,
    # --- the agent, where it is the same user (pid 0 is the caller; reading limits stays free)
    Entry(
        ("prlimit64",),
        EPERM,
        "limits of another process: prlimit(agent, NOFILE, 0) would starve it",
        (_ne(0, 0), Test(2, Op.NOT_NULL)),
        Only.SHARED_UID,
    ),
    Entry(
        ("sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr", "migrate_pages", "move_pages"),
        EPERM,
        "scheduling and memory placement of another process",
        (_ne(0, 0),),
        Only.SHARED_UID,
    ),
    Entry(("setpriority",), EPERM, "priority of another process", (_ne(1, 0),), Only.SHARED_UID),
    Entry(("setpriority",), EPERM, "priority of all processes of the user", (_eq(0, PRIO_USER),), Only.SHARED_UID),
    Entry(("ioprio_set",), EPERM, "I/O priority of another process", (_ne(1, 0),), Only.SHARED_UID),
    Entry(("ioprio_set",), EPERM, "I/O priority of all of the user's", (_eq(0, IOPRIO_WHO_USER),), Only.SHARED_UID),
    Entry(("process_madvise", "process_mrelease"), EPERM, "memory of another process", (), Only.SHARED_UID),
    # --- the kernel's own surface
    Entry(("io_uring_setup", "io_uring_enter", "io_uring_register"), ENOSYS, "does other calls past this filter"),
    Entry(("keyctl", "add_key", "request_key"), EPERM, "kernel keyrings are not per container"),
    Entry(
        ("bpf", "userfaultfd", "perf_event_open"), EPERM, "kernel attack surface; userfaultfd also stalls the reader"
    ),
    Entry(_HOST, EPERM, "belongs to the machine, not to a session"),
    # --- the terminal
    Entry(("ioctl",), EPERM, "types into the terminal of whoever started the session", (_eq(1, TIOCSTI),)),
    Entry(("ioctl",), EPERM, "pastes into the console", (_eq(1, TIOCLINUX),)),
    # --- sockets: what is not granted here does not exist
    *_CONNECTING,
    *_LEFT_BEHIND,
    Entry(("socket", "socketpair"), RET_ALLOW, "inside the machine", (_eq(0, AF_UNIX),)),
    Entry(("socket",), RET_ALLOW, "reads interfaces and routes", (_eq(0, AF_NETLINK), _eq(2, NETLINK_ROUTE))),
    Entry(("socket",), RET_ALLOW, "the jail has no way out", (_eq(0, AF_INET),), Only.JAIL),
    Entry(("socket",), RET_ALLOW, "the jail has no way out", (_eq(0, AF_INET6),), Only.JAIL),
    *(
        Entry(
            ("socket",),
            RET_ALLOW,
            "TCP, whose ports Landlock decides",
            (_eq(0, family), _STREAM, _eq(2, protocol)),
            Only.NO_JAIL,
        )
        for family in (AF_INET, AF_INET6)
        for protocol in (IPPROTO_IP, IPPROTO_TCP)
    ),
    *(
        Entry(
            ("socket",),
            EACCES,
            "UDP, raw, MPTCP and SCTP pass Landlock's TCP rule by",
            (_eq(0, family),),
            Only.NO_JAIL,
        )
        for family in (AF_INET, AF_INET6)
    ),
    Entry(("socket", "socketpair"), EAFNOSUPPORT, "PACKET, VSOCK, ALG and the like: ways out, or kernel surface"),
    Entry(
        ("sendto", "sendmmsg"),
        EACCES,
        "TCP Fast Open connects without Landlock being asked",
        (_ne(3, 0, MSG_FASTOPEN),),
        Only.NO_JAIL,
    ),
    Entry(("sendmsg",), EACCES, "TCP Fast Open, as above", (_ne(2, 0, MSG_FASTOPEN),), Only.NO_JAIL),
)
