"""Acts against the agent itself, first its processes; run by `kit.py`, see there. Outside of the confinement, where
there is no agent, its part is played by a child of the attacker's own."""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import time

from kit import IN_GVISOR, WORLD, Absent, Resisted, attack, call, child, main

UNCONFINED = WORLD["runtime"] == "unconfined"
PRIVATE = ("environ", "maps", "auxv", "io", "fd", "fdinfo", "map_files")
LINKS = ("root", "cwd", "exe")


def agents(*, with_init=True):
    """The agent's processes that are in sight; the session's init is its first process, and the session's parent."""
    if UNCONFINED:
        return [child()]
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
            modules = [word for word in file.read().split(b"\0") if word.startswith(b"agent.")]
            if modules and (with_init or not modules[0].startswith(b"agent.session.")):
                found.append(int(entry))
    return found


def on_agents(*acts):
    """Try the acts on each of the agent's processes; what succeeded. Raises OSError where nothing did."""
    return on_processes(agents(), *acts)


def on_processes(pids, *acts):
    done, last = [], None
    for pid in pids:
        for act in acts:
            try:
                act(pid)
                done.append(f"{act.__name__} {pid}")
            except OSError as error:
                last = error
    if done:
        return done
    if last is None:
        raise Resisted("no process of the agent's is in sight")
    raise last


def signal_0(pid):
    os.kill(pid, 0)


def signal_urg(pid):
    os.kill(pid, signal.SIGURG)


def by_descriptor(pid):
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGURG)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def stop(pid):
    os.kill(pid, signal.SIGSTOP)


def abort(pid):
    os.kill(pid, signal.SIGABRT)


@attack()
def signalled():
    return on_processes(agents(with_init=False), signal_0, signal_urg, by_descriptor)


@attack()
def killed():
    return on_processes(agents(with_init=False), stop, abort, kill)


@attack()
def sessions_init_signalled():
    """Only asked whether it may: with its first process the session would end."""
    return on_processes(set(agents()) - set(agents(with_init=False)) or [child()] * UNCONFINED, signal_0, signal_urg)


def gone(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    return True


@attack()
def signalled_for_a_descriptor():
    """The kernel signals whom F_SETOWN names, with what F_SETSIG says, when there is something to read."""

    def owned(pid):
        near, far = socket.socketpair()
        with near, far:
            fcntl.fcntl(near, fcntl.F_SETOWN, pid)
            fcntl.fcntl(near, 10, signal.SIGKILL)  # F_SETSIG
            fcntl.fcntl(near, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC | os.O_NONBLOCK)
            far.send(b"x")
            time.sleep(0.1)
        if not gone(pid):
            raise OSError(errno.EPERM, "it goes on")

    return on_processes(agents(with_init=False), owned)


@attack()
def orphans_last_word():
    """The signal that clone(2) names goes to the parent when the child ends: here to the one that takes its orphans."""
    near, far = os.pipe()
    middle = os.fork()
    if not middle:
        parent = os.getpid()
        if not call(56, signal.SIGKILL, 0, 0, 0, 0):
            while os.getppid() == parent:
                time.sleep(0.01)
            os.write(far, struct.pack("i", os.getppid()))
        os._exit(0)
    os.waitpid(middle, 0)
    (reaper,) = struct.unpack("i", os.read(near, 4))
    time.sleep(0.2)
    if gone(reaper):
        return f"{reaper} is no more"
    raise Resisted(f"{reaper} goes on")


@attack()
def traced():
    def attach(pid):
        call(101, 16, pid, 0, 0)

    def seize(pid):
        call(101, 0x4206, pid, 0, 0)

    return on_agents(attach, seize)


def vector():
    word = ctypes.create_string_buffer(8)
    return (ctypes.c_void_p * 2)(ctypes.addressof(word), 8), word


@attack()
def memory_read():
    def process_vm_readv(pid):
        place, _word = vector()
        call(310, pid, place, 1, place, 1, 0)

    return on_agents(process_vm_readv)


@attack()
def memory_written():
    def process_vm_writev(pid):
        place, _word = vector()
        call(311, pid, place, 1, place, 1, 0)

    def mem(pid):
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))

    return on_agents(process_vm_writev, mem)


@attack()
def neighbours_memory():
    """What was approved at an exec is changed afterwards, in a process of the session's own."""
    near, far = os.pipe()
    text = ctypes.create_string_buffer(b"as approved")
    neighbour = os.fork()
    if not neighbour:
        os.read(near, 1)
        os._exit(text.value != b"as approved")
    try:
        with open(f"/proc/{neighbour}/mem", "r+b", buffering=0) as file:
            file.seek(ctypes.addressof(text))
            file.write(b"changed")
    finally:
        os.write(far, b"x")
        changed = os.waitpid(neighbour, 0)[1]
    if not changed:
        raise Resisted("the memory is as it was")
    return "changed another process's memory"


@attack()
def looked_into():
    def look(name):
        def read(pid):
            path = f"/proc/{pid}/{name}"
            if os.path.isdir(path):
                os.listdir(path)
            else:
                with open(path, "rb") as file:
                    if not file.read(1) and name in ("environ", "maps"):
                        raise OSError(errno.EACCES, "empty")

        read.__name__ = name
        return read

    return on_agents(*[look(name) for name in PRIVATE])


@attack()
def followed():
    def follow(name):
        def link(pid):
            os.stat(f"/proc/{pid}/{name}")

        link.__name__ = name
        return link

    return on_agents(*[follow(name) for name in LINKS])


@attack()
def descriptors_opened():
    """What has no name, or none that the session may open: memory, pipes, the log."""
    held = os.memfd_create("held") if UNCONFINED else -1

    def opened(pid):
        found = []
        for number in os.listdir(f"/proc/{pid}/fd"):
            name = f"/proc/{pid}/fd/{number}"
            for flags in (os.O_RDONLY, os.O_WRONLY):
                with contextlib.suppress(OSError):
                    target = os.readlink(name)
                    os.close(os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY))
                    if not os.access(target, os.R_OK if flags == os.O_RDONLY else os.W_OK):
                        found.append(target)
        if not found:
            raise OSError(errno.EACCES, "nothing but what has a name")

    done = on_agents(opened)
    if held >= 0:
        os.close(held)
    return done


@attack()
def descriptors_taken():
    if IN_GVISOR:
        raise Absent("gVisor has no pidfd_getfd")

    def take(pid):
        held = os.pidfd_open(pid)
        for number in range(12):
            with contextlib.suppress(OSError):
                return call(438, held, number, 0)
        raise OSError(errno.EPERM, "pidfd_getfd")

    return on_agents(take)


@attack()
def limited():
    def prlimit(pid):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))

    return on_agents(prlimit)


@attack()
def slowed():
    def scheduler(pid):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))

    def affinity(pid):
        os.sched_setaffinity(pid, {0})

    def priority(pid):
        os.setpriority(os.PRIO_PROCESS, pid, 19)

    def io_priority(pid):
        call(251, 1, pid, 3 << 13)

    return on_agents(priority, scheduler, affinity, io_priority)


@attack()
def offered_to_the_oom_killer():
    def score(pid):
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write("1000")

    def what_a_core_holds(pid):
        with open(f"/proc/{pid}/coredump_filter", "w") as file:
            file.write("0x7f")

    return on_agents(score, what_a_core_holds)


if __name__ == "__main__":
    import beliefs  # noqa: F401 - their acts come after those of this file
    import doors  # noqa: F401
    import patience  # noqa: F401

    main()
