"""Acts that want the agent too busy to decide, of `agent.py`; run by `kit.py`, see there."""

import array
import contextlib
import fcntl
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from urllib.parse import urlsplit

from kit import GRANTED, IN_GVISOR, LIBC, WORLD, Absent, attack, child, dangerous, own, runs

FEW = 5 if IN_GVISOR else 1  # gVisor is that much slower
HOOK = "/run/parhelia/hook.sock"


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
