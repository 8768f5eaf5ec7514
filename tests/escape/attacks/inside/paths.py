"""Acts against the path guard and the exec ring; run by `kit.py`, see there."""

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import time

from kit import (
    GRANTED,
    LIBC,
    SECRET,
    VICTIM,
    VICTIMS,
    WORLD,
    Absent,
    Resisted,
    append,
    attack,
    call,
    create,
    main,
    own,
    read,
    secret_in,
    there,
)  # fmt: skip

O_TMPFILE, AT_FDCWD, AT_EMPTY_PATH = 0o20200000, -100, 0x1000
OUTSIDER = f"/proc/{WORLD['outsider']}"


def through_a_link(act, target, name):
    link = f"{GRANTED}/{name}"
    os.symlink(target, link)
    return act(link)


@attack()
def symlink_out():
    return through_a_link(append, VICTIM, "link")


@attack()
def symlinked_parent():
    return through_a_link(lambda link: create(link + "/by-symlinked-parent"), VICTIMS + "/open", "parent")


@attack(seconds=20)
def swapped_link():
    harmless, place, spare = own("harmless"), f"{GRANTED}/swapped", f"{GRANTED}/swapped.next"
    swapper = os.fork()
    if not swapper:
        while True:
            for target in (VICTIM, harmless):
                os.symlink(target, spare)
                os.replace(spare, place)
    end, refused = time.monotonic() + 1.5, 0
    while time.monotonic() < end:
        try:
            with open(place) as file:
                if SECRET in file.read():
                    return "read the secret between check and open"
        except OSError:
            refused += 1
    raise Resisted(f"refused {refused} times, never read")


@attack()
def listed_directory():
    return os.listdir(VICTIMS + "/open")


@attack()
def plain_write():
    return append(VICTIM)


@attack()
def plain_read():
    return read(VICTIM)


@attack()
def new_file():
    return create(VICTIMS + "/open/by-new-file")


@attack()
def new_directory():
    return os.mkdir(VICTIMS + "/open/by-new-directory") or "made it"


@attack()
def removed_file():
    return os.unlink(VICTIMS + "/open/removable") or "removed it"


@attack()
def truncated_file():
    return os.truncate(VICTIMS + "/open/truncatable", 1) or "truncated it"


@attack()
def private_file():
    with open(VICTIMS + "/private") as file:
        return secret_in(file.read())


@attack(control=lambda: os.rename(own("movable"), f"{GRANTED}/moved"))
def renamed_in():
    os.rename(VICTIMS + "/open/movable", f"{GRANTED}/from-outside")
    return "moved it into the granted tree"


@attack()
def renamed_out():
    os.rename(own("mine"), VICTIMS + "/open/by-renamed-out")
    return "moved it out of the granted tree"


def exchange(one, other):
    call(316, AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), 2)  # renameat2, RENAME_EXCHANGE
    return "exchanged it with a file of its own"


@attack(control=there(lambda: exchange(own("one"), own("other")), errno.EINVAL))
def exchanged():
    return exchange(own("exchanged"), VICTIMS + "/open/exchangeable")


@attack(control=lambda: os.link(own("original"), f"{GRANTED}/second-name"))
def hard_link():
    os.link(VICTIM, f"{GRANTED}/hard-link")
    return read(f"{GRANTED}/hard-link")


@attack()
def earlier_hard_link():
    return read(f"{GRANTED}/earlier-name-of-the-open-file")


@attack()
def earlier_hard_link_private():
    return read(f"{GRANTED}/earlier-name-of-the-private-file")


@attack()
def own_root_link():
    return read("/proc/self/root" + VICTIM)


@attack()
def own_cwd_link():
    os.chdir(GRANTED)
    return read("/proc/self/cwd/" + os.path.relpath(VICTIM, GRANTED))


@attack()
def outsiders_root():
    return read(OUTSIDER + "/root" + VICTIM)


@attack()
def outsiders_cwd():
    return read(OUTSIDER + "/cwd/open/file.txt")


@attack()
def outsiders_descriptor():
    return read(f"{OUTSIDER}/fd/{WORLD['outsider_fd']}")


@attack()
def outsiders_memory():
    with open(OUTSIDER + "/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open(OUTSIDER + "/mem", "rb") as memory:
        memory.seek(start)
        return f"read {len(memory.read(16))} bytes of its memory"


@attack()
def outsiders_environment():
    with open(OUTSIDER + "/environ") as file:
        return f"read {len(file.read())} bytes"


@attack(control=lambda: os.kill(os.getpid(), signal.SIGCONT))
def outsiders_signal():
    os.kill(WORLD["outsider"], signal.SIGUSR1)
    return "sent a signal to a process outside"


@attack()
def reopened_descriptor():
    held = os.open(VICTIM, os.O_PATH)
    with open(f"/dev/fd/{held}", "a") as file:
        file.write("+")
    return "opened an O_PATH descriptor again, for writing"


@attack(control=lambda: os.close(os.open(GRANTED, os.O_RDONLY)))
def inherited_descriptor():
    for number in range(3, 1024):
        with contextlib.suppress(OSError):
            kind = os.fstat(number).st_mode
            if stat.S_ISDIR(kind) or stat.S_ISREG(kind):
                return f"descriptor {number} is {os.readlink(f'/proc/self/fd/{number}')}"
    raise Resisted("no file or directory among the inherited descriptors")


def open_by_openat2(path):
    how = struct.pack("=QQQ", os.O_RDWR, 0, 0x02)  # RESOLVE_NO_MAGICLINKS
    return os.read(call(437, AT_FDCWD, path.encode(), how, len(how)), 200)


@attack(control=there(lambda: open_by_openat2(own("for-openat2")), errno.ENOSYS))
def openat2():
    return secret_in(open_by_openat2(VICTIM))


@attack()
def io_uring():
    if WORLD["runtime"].startswith("gvisor"):
        raise Absent("gVisor has no io_uring")
    call(425, 4, ctypes.create_string_buffer(120))
    return "made a ring whose calls no filter sees"


@attack(control=there(lambda: unnamed_file(GRANTED + "/linked"), errno.EOPNOTSUPP))
def unnamed_file_linked_out():
    return unnamed_file(VICTIMS + "/open/by-unnamed-file-linked-out")


def unnamed_file(path):
    held = os.open(GRANTED, O_TMPFILE | os.O_RDWR, 0o600)
    if LIBC.linkat(AT_FDCWD, f"/proc/self/fd/{held}".encode(), AT_FDCWD, path.encode(), 0x400) == -1:
        raise OSError(ctypes.get_errno(), "linkat")
    return "linked an unnamed file"


@attack()
def changed_mode():
    os.chmod(VICTIMS + "/open/owned", 0o666)
    os.utime(VICTIMS + "/open/owned", (1, 1))
    return "changed mode and times of a file of its own account's outside the grants"


@attack()
def looked_at():
    return f"{os.stat(VICTIM).st_size} bytes"


@attack()
def watched_directory():
    """inotify(7): what changes is told by name; here it is the times of an own file that change."""
    queue = LIBC.inotify_init1(os.O_NONBLOCK)
    if LIBC.inotify_add_watch(queue, os.fsencode(VICTIMS + "/open"), 0x4) == -1:  # IN_ATTRIB
        raise OSError(ctypes.get_errno(), "not to be watched")
    os.utime(VICTIMS + "/open/owned")
    if b"owned" not in os.read(queue, 4096):
        raise Resisted("told no name")
    return "names of what changes in a directory outside of the grants"


@attack()
def long_path():
    """Below a directory that only a path of more than PATH_MAX bytes names."""
    os.chdir(VICTIMS + "/open")
    name = "d" * 200
    for _ in range(24):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name)
        os.chdir(name)
    with open("by-long-path", "w") as file:
        file.write("x")
    return "wrote below a path of 4,800 bytes"


if __name__ == "__main__":
    import programs  # noqa: F401 - their acts come after those of this file
    import protected  # noqa: F401
    import surroundings  # noqa: F401

    main()
