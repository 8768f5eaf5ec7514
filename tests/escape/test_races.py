"""Races with the guard that makes a session's sockets: descriptors, addresses and processes that change meanwhile."""

from __future__ import annotations

import json

import pytest

from tests.escape.containers import Docker
from tests.escape.runtime import Case, policy
from tests.escape.test_sockets import PRELUDE, denied

pytestmark = [pytest.mark.root, pytest.mark.docker]

RACES = r"""
import array, ctypes, errno, mmap, random, signal, time
SECONDS = 1.5
libc = ctypes.CDLL(None, use_errno=True)
raw_there = struct.pack("=H", 2) + struct.pack("!H4s8x", raw, socket.inet_aton("127.0.0.1"))
shared = mmap.mmap(-1, 4096)
place = ctypes.addressof(ctypes.c_char.from_buffer(shared))
def unix(path): return struct.pack("=H", 1) + path.encode() + b"\0"
def call(fd, length): return libc.connect(fd, ctypes.c_void_p(place), length)
def says(fd):
    with socket.socket(fileno=os.dup(fd)) as link:
        link.settimeout(0.02)
        try: return link.recv(100)
        except OSError: return b""
def until(act):
    end, got = time.time() + SECONDS, []
    while time.time() < end or len(got) < 6: got.append(act())
    return got
def swapping(change, act):
    stop = threading.Event()
    def loop():
        while not stop.is_set(): change()
    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads: thread.start()
    try: return until(act)
    finally:
        stop.set()
        for thread in threads: thread.join()
own = socket.socket(socket.AF_UNIX); own.bind("/tmp/races.sock"); own.listen(64)
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen(64)
here = struct.pack("=H", 2) + struct.pack("!H4s8x", server.getsockname()[1], socket.inet_aton("127.0.0.1"))
def address():
    texts = [raw_there, here]
    def change(): shared[:16] = random.choice(texts)
    def act():
        with socket.socket() as sock: return says(sock.fileno()) if call(sock.fileno(), 16) == 0 else b""
    return swapping(change, act)
def descriptor():
    slot, inet, path = socket.socket(), socket.socket(), socket.socket(socket.AF_UNIX)
    shared[:16] = raw_there
    def change():
        with contextlib.suppress(OSError):
            os.dup2(random.choice((inet, path)).fileno(), slot.fileno())
    def act():
        call(slot.fileno(), 16)
        return says(inet.fileno())
    return swapping(change, act)
def closed():
    shared[:16] = raw_there
    numbers = []
    def change():
        with contextlib.suppress(OSError, IndexError): os.close(numbers.pop())
    def act():
        number = libc.socket(2, 1, 0)
        numbers.append(number)
        call(number, 16)
        return b"" if number not in numbers else says(number) if number >= 0 else b""
    def quiet():
        try: return act()
        except OSError: return b""
    return swapping(change, quiet)
def cloned():
    CLONE_FILES, SIGCHLD = 0x400, 17
    shared[:16] = raw_there
    def act():
        sock = socket.socket()
        pid = libc.syscall(56, CLONE_FILES | SIGCHLD, 0, 0, 0, 0)  # clone(2): one table of descriptors, two processes
        if pid == 0:
            call(sock.fileno(), 16)
            os._exit(0)
        call(sock.fileno(), 16)
        if pid > 0: os.waitpid(pid, 0)
        with sock: return says(sock.fileno())
    return until(act)
def passed():
    ours, theirs = socket.socketpair()
    shared[:16] = raw_there
    def act():
        sock = socket.socket()
        pid = os.fork()
        if pid == 0:
            _, ancillary, _, _ = theirs.recvmsg(1, 64)
            call(array.array("i", ancillary[0][2])[0], 16)
            os._exit(0)
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
        os.waitpid(pid, 0)
        with sock: return says(sock.fileno())
    return until(act)
def interrupted():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
    shared[:16] = raw_there
    def act():
        with socket.socket() as sock:
            call(sock.fileno(), 16)
            return says(sock.fileno())
    try: return until(act)
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
def killed():
    shared[:16] = raw_there
    def act():
        pid = os.fork()
        if pid == 0:
            while True:
                sock = socket.socket(); call(sock.fileno(), 16)
        time.sleep(random.random() / 50)
        os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
        return b""
    return until(act)
for race in (address, descriptor, closed, cloned, passed, interrupted, killed):
    got = race()
    found[race.__name__] = {"tries": len(got), "reached": sum(b"reached" in each for each in got)}
attempt("afterwards", lambda: talk(("127.0.0.1", http), get(f"allowed.test:{http}")))
"""


def test_nothing_that_changes_meanwhile_leads_a_connection_elsewhere(docker_sessions: Docker) -> None:
    ports = [str(docker_sessions.upstream.ports[name]) for name in ("http", "tls", "raw")]
    command = ("/usr/bin/python3", "-c", PRELUDE + RACES + "\nprint(json.dumps(found))", *ports)
    outcome = docker_sessions.run(Case(command, policy(), flags=("--require", "contained")))
    assert outcome.status == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found.pop("afterwards") == f"reached allowed.test:{ports[0]}"
    assert {name: race["reached"] for name, race in found.items()} == dict.fromkeys(found, 0)
    assert all(race["tries"] > 5 for race in found.values()), found
    assert docker_sessions.upstream.escapes == 0
    assert outcome.verified == 0
    rules = {event["details"]["rule"] for event in denied(outcome)}
    assert "egress-default" in rules
    assert "agent-fault" not in rules
