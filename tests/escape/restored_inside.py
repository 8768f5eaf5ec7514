"""In a session that is checkpointed and restored: uses the sockets of before for what the jail does not allow.

`restored_inside.py ROOT_PORT FOUND`: waits for the jump of the clock, and leaves one JSON object in FOUND. Standard
library only. What arrives outside is seen by `restored_outside.py`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
import urllib.request

INBOUND = 4500
ESCAPED = b"escaped"
RACES = 20


def attempt(sock: socket.socket, port: int, *, tcp: bool = True) -> str:
    """What comes of it."""
    try:
        if tcp:
            sock.settimeout(20)
            sock.connect(("127.0.0.1", port))
            sock.send(ESCAPED)
        else:
            sock.sendmsg([ESCAPED], [], 0, ("127.0.0.1", port))
    except OSError as error:
        return type(error).__name__
    return "sent"


def ask(port: int, seconds: float = 60.0) -> str:
    """A page through the proxy, once that is there."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://allowed.test:{port}/page", None, 5) as answer:
                return str(answer.status)
        except OSError as error:
            if time.monotonic() > end:
                return f"{type(error).__name__} {error}"
            time.sleep(0.2)


def resolve(name: str, seconds: float = 60.0) -> str:
    """Its address by the session's name server, once that is there."""
    end = time.monotonic() + seconds
    while True:
        try:
            return str(socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            if time.monotonic() > end:
                return type(error).__name__
            time.sleep(0.2)


def captured(seconds: float = 60.0) -> str:
    """What a client that knows no proxy is answered by a host that is not allowed."""
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("192.0.2.9", 80), 5) as asking:
                asking.sendall(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
                return asking.recv(100).decode().split()[1]
        except (OSError, IndexError) as error:
            if time.monotonic() > end:
                return type(error).__name__
            time.sleep(0.2)


def resolve_by_ipv6(name: str, seconds: float = 20.0) -> str:
    """The same by a stream of IPv6 (RFC 7766): how many answers there are to a question for A."""
    words = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
    asked = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + words + struct.pack(">B2H", 0, 1, 1)
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("::1", 53), 5) as link:
                link.sendall(struct.pack(">H", len(asked)) + asked)
                return str(struct.unpack(">H", link.makefile("rb").read(10)[8:])[0])
        except (OSError, struct.error) as error:
            if time.monotonic() > end:
                return type(error).__name__
            time.sleep(0.2)


def look_around(port: int) -> dict[str, str]:
    """What the doors of the session's network answer."""
    return {"page": ask(port), "name": resolve("allowed.test"), "captured": captured()}


def have_connected(port: int) -> None:
    """In a process of its own: have a connected datagram socket, and send nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        time.sleep(3600)


def race(old: socket.socket, port: int) -> list[str]:
    """One thread connects what another one exchanges for a socket of before."""
    place = os.dup(old.fileno())
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            with socket.socket() as made:
                os.dup2(made.fileno(), place)
            os.dup2(old.fileno(), place)

    thread = threading.Thread(target=exchange)
    thread.start()
    found = set()
    try:
        for _ in range(RACES):
            view = socket.socket(fileno=os.dup(place))
            found.add(attempt(view, port))
            view.close()
    finally:
        stop.set()
        thread.join()
    os.close(place)
    return sorted(found)


def wait_for_the_jump() -> None:
    last = time.monotonic()
    while time.monotonic() - last < 3:
        last = time.monotonic()
        time.sleep(0.01)


def serve() -> None:
    """In a process of its own: accept, from before the checkpoint on."""
    listener = socket.socket()
    listener.bind(("0.0.0.0", INBOUND))
    listener.listen()
    while True:
        try:
            accepted, _ = listener.accept()
            accepted.send(ESCAPED)
        except OSError:
            time.sleep(1)


def main() -> None:
    port = int(sys.argv[1])
    server = os.fork()
    if server == 0:
        serve()
    connected = os.fork()
    if connected == 0:
        have_connected(port)
        os._exit(0)
    inet = [socket.socket() for _ in range(8)]
    old = [*inet, socket.socket(socket.AF_INET6)]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
        six = "made"
    except OSError as error:
        six = type(error).__name__
    found: dict[str, object] = {
        "before": attempt(socket.socket(), port),
        "six": six,
        "around before": look_around(port),
    }
    with open(f"{sys.argv[2]}.ready", "w") as file:
        file.write(json.dumps(found))
    wait_for_the_jump()
    found["old"] = attempt(old[0], port)
    found["datagram"] = attempt(datagrams, port, tcp=False)
    found["new"] = attempt(socket.socket(), port)
    found["raced"] = race(old[1], port)
    found |= {"around": look_around(port), "by IPv6": resolve_by_ipv6("allowed.test")}
    found["connected"] = os.waitpid(connected, 0)[1]
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(ask(port, 0.5))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found["in threads"] = sorted({result.split()[0] for result in results})
    os.kill(server, 9)
    os.waitpid(server, 0)
    for sock in (*old, datagrams):
        sock.close()
    results.clear()
    thread = threading.Thread(target=lambda: results.append(ask(port)))
    thread.start()
    thread.join()
    found["in a thread, none left"] = results[0]
    with open(f"{sys.argv[2]}.new", "w") as file:
        json.dump(found, file)
    os.rename(f"{sys.argv[2]}.new", sys.argv[2])


if __name__ == "__main__":
    main()
