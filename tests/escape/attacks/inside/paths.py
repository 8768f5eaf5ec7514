"""Acts against the path guard and the exec ring; run by `kit.py`, see there."""

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
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
    dangerous,
    main,
    own,
    read,
    runs,
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


@attack()
def shell_builtins():
    return secret_in(runs("/bin/bash", "-c", 'mapfile -t x < "$1"; echo "${x[0]}"; echo + >> "$1"', "bash", VICTIM))


@attack(control=lambda: runs("/bin/true"))
def ungranted_program():
    return runs(VICTIMS + "/open/program")


@attack(control=lambda: shutil.copy("/bin/echo", "/tmp/parhelia-attack-echo") and runs("/tmp/parhelia-attack-echo"))
def copied_program():
    path = f"{GRANTED}/harmless-name"
    shutil.copy(shutil.which("rm"), path)
    return runs(path, *dangerous("copied-program")[1:])


@attack()
def program_in_shared_memory():
    path = f"/dev/shm/parhelia-attack-{os.getpid()}"
    shutil.copy(shutil.which("rm"), path)
    try:
        return runs(path, *dangerous("program-in-shared-memory")[1:])
    finally:
        os.unlink(path)


@attack(control=lambda: in_memory("echo"))
def program_in_memory():
    return in_memory(*dangerous("program-in-memory"))


def in_memory(name, *arguments):
    held = os.memfd_create("note")
    with open(shutil.which(name), "rb") as program:
        os.write(held, program.read())
    return runs(f"/proc/self/fd/{held}", *arguments, pass_fds=(held,))


@attack(control=lambda: runs("/lib64/ld-linux-x86-64.so.2", "/bin/echo"))
def loader():
    return runs("/lib64/ld-linux-x86-64.so.2", shutil.which("rm"), *dangerous("loader")[1:])


@attack()
def loader_of_an_ungranted_program():
    return runs("/lib64/ld-linux-x86-64.so.2", VICTIMS + "/open/mapped")


@attack()
def preloaded_library():
    loading = {"LD_PRELOAD": own("library.so"), "LD_LIBRARY_PATH": GRANTED}
    return runs(*dangerous("preloaded-library"), env={"PATH": os.environ["PATH"], **loading})


@attack(control=lambda: runs("/bin/bash", "-c", "true"))
def file_that_bash_reads_first():
    first = own("first.sh", " ".join(dangerous("file-that-bash-reads-first")) + "\n")
    return runs("/bin/bash", "-c", "true", env={"PATH": os.environ["PATH"], "BASH_ENV": first})


@attack()
def forged_environment():
    forged = dict.fromkeys(("PARHELIA_IN_SESSION", "PARHELIA_DISABLE", "PARHELIA_SESSION_ID", "PARHELIA_RUN_DIR"), "1")
    return runs(*dangerous("forged-environment"), env=os.environ | forged | {"PARHELIA_POLICY_DIR": GRANTED})


@attack(control=lambda: runs("sh", "-c", "true"))
def shell_without_a_terminal():
    return runs("sh", "-c", " ".join(dangerous("shell-without-a-terminal")))


@attack()
def words_that_cannot_be_read():
    """execve with an argv that lies in memory nobody may read."""
    page = mmap.mmap(-1, 8192)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    LIBC.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(4096), 0)
    call(59, shutil.which("rm").encode(), place, 0)


@attack()
def own_filter():
    """A filter of the session's own, which the supervisor's may not be overruled by."""
    LIBC.prctl(38, 1, 0, 0, 0)
    program = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # return ALLOW
    place = ctypes.create_string_buffer(program)
    call(317, 1, 0, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(place)))
    return runs(*dangerous("own-filter"))


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


REPOSITORY = f"{GRANTED}/repository"


@attack(control=lambda: own("unprotected"))
def protected_file():
    return append(REPOSITORY + "/.git/config")


@attack(control=lambda: own("unprotected"))
def protected_file_made_later():
    return create(f"{GRANTED}/settings.json")


@attack(control=lambda: own("unprotected"))
def protected_name_made_later():
    return create(REPOSITORY + "/below/.env")


@attack(control=lambda: own("unprotected"))
def protected_in_a_new_repository():
    os.makedirs(f"{GRANTED}/cloned/.git/hooks")
    return create(f"{GRANTED}/cloned/.git/hooks/pre-commit")


@attack(control=lambda: os.rename(own("mine"), own("replaced")))
def renamed_over_a_protected_file():
    os.rename(own("mine"), REPOSITORY + "/.git/config")
    return "has taken its place"


@attack(control=lambda: os.unlink(own("mine")))
def removed_protected_file():
    return os.unlink(REPOSITORY + "/.git/hooks/pre-commit") or "removed it"


@attack(control=lambda: os.link(own("mine"), f"{GRANTED}/second"))
def hard_link_to_a_protected_file():
    os.link(REPOSITORY + "/.git/config", f"{GRANTED}/second-name-of-config")
    return append(f"{GRANTED}/second-name-of-config")


@attack(control=lambda: append(own("shallow")))
def deep_protected_file():
    return append(f"{GRANTED}/1/2/3/4/5/6/7/8/.git/config")


@attack(control=lambda: own("late.txt"))
def protected_by_a_pattern_and_made_later():
    os.mkdir(f"{GRANTED}/late")
    return create(f"{GRANTED}/late/key.pem")


@attack()
def other_case():
    if not os.path.exists(f"{GRANTED}/REPOSITORY"):
        raise Absent("the file system tells upper from lower case")
    return append(REPOSITORY + "/.GIT/config")


@attack(control=lambda: os.rename(own("mine"), f"{GRANTED}/mine-moved"))
def rebuilt_ancestor():
    os.rename(REPOSITORY, f"{GRANTED}/away")
    os.makedirs(REPOSITORY + "/.git/hooks")
    return create(REPOSITORY + "/.git/hooks/pre-commit")


if __name__ == "__main__":
    main()
