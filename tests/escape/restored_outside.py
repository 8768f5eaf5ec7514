"""Beside the agent, in the container's own network: the page that is allowed, and whatever else arrives.

`restored_outside.py PORT INBOUND SEEN`: serves a page on PORT, takes datagrams there, and asks on INBOUND. Each first
line of a connection, each datagram and each answer is a line of SEEN. Whether the run's directory is
locked is a line of SEEN.locks, again and again. Standard library only.
"""

from __future__ import annotations

import fcntl
import glob
import os
import socket
import sys
import threading
import time
from contextlib import suppress


def main() -> None:
    port, inbound, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def see(data: bytes) -> None:
        with open(path, "ab") as file:
            file.write((data.splitlines() or [b"nothing"])[0] + b"\n")

    def take() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", port))
            while True:
                see(receiver.recv(1000))

    def call() -> None:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", inbound), 1) as asking:
                answer = asking.recv(100)
                if answer:
                    see(answer)
            time.sleep(0.1)

    def try_locks() -> None:
        """As another run does that looks for dead ones (agent/daemon/keeping/leavings.py)."""
        while True:
            for held in glob.glob("/run/parhelia/*-*/held"):
                with suppress(FileNotFoundError):
                    directory = os.open(os.path.dirname(held), os.O_RDONLY)
                    try:
                        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        found = b"free\n"
                    except BlockingIOError:
                        found = b"held\n"
                    os.close(directory)
                    with open(f"{path}.locks", "ab") as file:
                        file.write(found)
            time.sleep(0.2)

    for work in (take, call, try_locks):
        threading.Thread(target=work, daemon=True).start()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    while True:
        accepted, _ = listener.accept()
        with suppress(OSError), accepted:
            accepted.settimeout(5)
            see(accepted.recv(1000))
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")


if __name__ == "__main__":
    main()
