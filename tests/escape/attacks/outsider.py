"""A process of the session's own account that is outside of its confinement, as an operator's bare `docker exec` makes
one: whatever an attack reaches of it, it reached past the agent.

Serves TCP, UDP and Unix sockets (by path and abstract), hands out a descriptor of a victim, sits in the victims'
directory, holds System V shared memory and a POSIX message queue, counts a signal, and dials the session. Run as
`outsider.py WORLD UID GID`; prints one line of JSON when it serves, and writes what reached it to the journal.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

with open(sys.argv[1]) as _file:
    WORLD: dict[str, Any] = json.load(_file)
SECRET: str = WORLD["secret"]
VICTIM = WORLD["victims"] + "/open/file.txt"
LIBC = ctypes.CDLL(None, use_errno=True)
LOCK = threading.Lock()


def journal(door: str, data: bytes) -> None:
    with LOCK, open(WORLD["journal"], "a") as file:
        file.write(json.dumps({"door": door, "data": data[:200].decode("latin-1")}) + "\n")


def serve(door: str, listener: socket.socket, *, give: bool = False) -> None:
    """Answer each connection with the secret; over Unix sockets the descriptor of a victim goes with it."""
    descriptor = os.open(VICTIM, os.O_RDWR)
    while True:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            journal(door, door.encode())
            peer.settimeout(2)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))] if give else []
            peer.sendmsg([SECRET.encode() + b"\n"], rights)
            peer.recv(200)


def take(door: str, receiver: socket.socket) -> None:
    """Answer each datagram with the secret, where its sender has an address."""
    while True:
        data, sender = receiver.recvfrom(200)
        journal(door, data)
        if sender:
            receiver.sendto(SECRET.encode(), sender)


def serve_late() -> None:
    """A Unix socket that is made when the session runs already."""
    while not os.path.exists(WORLD["granted"] + "/ready-for-the-late-socket"):
        time.sleep(0.05)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(WORLD["late"])
    os.chmod(WORLD["late"], 0o666)
    listener.listen(16)
    serve("unix_made_later", listener, give=True)


def dial() -> None:
    """Connect to where the session says that it listens, at an address that stands for another one of the machine's."""
    while True:
        for address, port in WORLD["inbound"]:
            with contextlib.suppress(OSError), socket.create_connection((address, port), 0.5) as link:
                link.sendall(SECRET.encode())
                journal("inbound", link.recv(200))
        time.sleep(0.1)


def start(act: Callable[..., None], *arguments: Any, **more: Any) -> None:
    threading.Thread(target=act, args=arguments, kwargs=more, daemon=True).start()


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: journal("signal", b"outsiders_signal"))
    os.chdir(WORLD["victims"])
    held = os.open(VICTIM, os.O_RDWR)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError):
            receiver = socket.socket(family, socket.SOCK_DGRAM)
            receiver.bind((address, WORLD["udp"]))
            start(take, "udp", receiver)
            for act, port in WORLD["tcp"].items():
                start(serve, act, socket.create_server((address, port), family=family))
    for act, name in (("unix_by_path", WORLD["unix"]), ("unix_abstract", "\0" + WORLD["abstract"])):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen(16)
        start(serve, act, listener, give=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(name + ".d")
        start(take, act, receiver)
    start(serve_late)
    for path in (WORLD["unix"], WORLD["unix"] + ".d"):
        os.chmod(path, 0o666)
    segment = LIBC.shmget(WORLD["key"], 4096, 0o1666)  # IPC_CREAT
    if segment >= 0:
        LIBC.shmat.restype = ctypes.c_void_p
        place = LIBC.shmat(segment, None, 0)
        ctypes.memmove(place, SECRET.encode(), len(SECRET))
    queue = LIBC.mq_open(WORLD["queue"].encode(), os.O_RDWR | os.O_CREAT, 0o666, None)
    if queue >= 0:
        LIBC.mq_send(queue, SECRET.encode(), len(SECRET), 0)
    start(dial)
    print(json.dumps({"outsider": os.getpid(), "outsider_fd": held}), flush=True)
    sys.stdin.read()  # until the test, or the container, is done with it
    LIBC.shmctl(segment, 0, None)  # IPC_RMID
    LIBC.mq_unlink(WORLD["queue"].encode())


if __name__ == "__main__":
    if os.getuid() != int(sys.argv[2]):
        os.setgroups([])
        os.setgid(int(sys.argv[3]))
        os.setuid(int(sys.argv[2]))
        os.execv(sys.executable, [sys.executable, *sys.argv])  # a process that dropped its uid is out of reach as it is
    main()
