"""Acts of `paths.py` against what the session's paths rest on: mounts, namespaces, memory of the machine."""

import contextlib
import ctypes
import errno
import os

from kit import GRANTED, LIBC, SECRET, VICTIMS, WORLD, Absent, Resisted, attack, call, read, secret_in

AT_FDCWD = -100


@attack(control=lambda: os.mkdir(f"{GRANTED}/mount"))
def bind_mount():
    os.makedirs(f"{GRANTED}/mount", exist_ok=True)
    call(165, VICTIMS.encode(), f"{GRANTED}/mount".encode(), b"none", 0x1000, 0)
    return read(f"{GRANTED}/mount/open/file.txt")


@attack()
def new_mounts():
    found = {}
    for name, number, arguments in (
        ("open_tree", 428, (AT_FDCWD, b"/", 1)),
        ("fsopen", 430, (b"tmpfs", 0)),
        ("umount2", 166, (b"/tmp", 2)),
        ("pivot_root", 155, (b"/tmp", b"/tmp")),
        ("chroot", 161, (b"/tmp",)),
    ):
        with contextlib.suppress(OSError):
            found[name] = call(number, *arguments)
    if not found:
        raise OSError(errno.EPERM, "none of the calls that change mounts")
    return found


@attack()
def new_namespaces():
    """A user namespace gives all capabilities in it, a mount namespace with it the right to mount."""
    call(272, 0x10000000 | 0x00020000)
    return "has namespaces of its own"


@attack()
def shared_memory_of_the_machine():
    LIBC.shmat.restype = ctypes.c_void_p
    segment = LIBC.shmget(WORLD["key"], 4096, 0)
    if segment == -1:
        raise OSError(ctypes.get_errno(), "shmget")
    place = LIBC.shmat(segment, None, 0o10000)
    if place in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "shmat")
    return secret_in(ctypes.string_at(place, len(SECRET)))


@attack()
def message_queue_of_the_machine():
    queue = LIBC.mq_open(WORLD["queue"].encode(), os.O_RDWR | os.O_NONBLOCK)
    if queue == -1:
        raise OSError(ctypes.get_errno(), "mq_open")
    text = ctypes.create_string_buffer(65536)
    size = LIBC.mq_receive(queue, text, 65536, None)
    if size == -1 and ctypes.get_errno() == errno.ENOSYS:
        raise Absent("this kernel's queues carry no messages")
    if size == -1:
        raise OSError(ctypes.get_errno(), "mq_receive")
    LIBC.mq_send(queue, SECRET.encode(), len(SECRET), 0)
    return secret_in(text.raw[:size])


@attack()
def own_confinement_seen():
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file]
    wanted = ("TracerPid:", "Seccomp:", "NoNewPrivs:")
    seen = {words[0]: words[1] for words in lines if words and words[0] in wanted}
    if seen.get("Seccomp:", "0") == "0" and seen.get("NoNewPrivs:", "0") == "0":
        raise Resisted(str(seen))
    return seen
