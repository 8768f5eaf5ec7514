#!/usr/bin/python3 -IS
"""What `ssh` connects by in a session: its ProxyCommand. One file, standard library only, Python 3.9 or newer.

It asks the session's proxy (HTTPS_PROXY) for HOST:PORT and carries the bytes between that tunnel and its standard input
and output. Rules: a refusal's rule and reason go to stderr, printable, where ssh and git show them; the proxy is where
the environment says, and where it says nothing, or names the host under NO_PROXY, the connection is made directly: this
is a client, and what confines the session lies elsewhere.

Usage, in ssh_config(5): ProxyCommand /usr/bin/python3 -IS .../ssh_proxy.py %h %p
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading

SECONDS = 60
MAX_HEAD = 65536
FAILED = 1
USAGE = 2
_PROXY = re.compile(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([^/:@\[\]]+)):([0-9]{1,5})/?")


class Fault(Exception):
    """Why there is no connection; the text is for a terminal."""


def run(host: str, port: str) -> int:
    """Connect and carry until the other side ends; the exit status."""
    try:
        if not re.fullmatch(r"[\x21-\x7e]{1,255}", host) or not re.fullmatch(r"[0-9]{1,5}", port):
            raise Fault("the host or port is malformed")
        proxy = _proxy(host)
        sock, first = _direct(host, int(port)) if proxy is None else _tunnel(proxy, host, port)
    except (Fault, OSError) as error:
        _say(f"parhelia: {error}")
        return FAILED
    sock.settimeout(None)
    threading.Thread(target=_up, args=(sock,), daemon=True).start()
    return _down(sock, first)


def _proxy(host: str) -> tuple[str, int] | None:
    """Where the session's proxy is. Raises Fault where the variable says something odd."""
    exempt = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    if host.strip("[]").lower() in [name.strip().lower() for name in exempt.split(",")]:
        return None
    given = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if not given:
        return None
    match = _PROXY.fullmatch(given)
    if match is None:
        raise Fault("HTTPS_PROXY is not http://ADDRESS:PORT")
    return match[1] or match[2], int(match[3])


def _direct(host: str, port: int) -> tuple[socket.socket, bytes]:
    return socket.create_connection((host.strip("[]"), port), SECONDS), b""


def _tunnel(proxy: tuple[str, int], host: str, port: str) -> tuple[socket.socket, bytes]:
    """The tunnel, and what the server had said already. Raises Fault, OSError."""
    try:
        sock = socket.create_connection(proxy, SECONDS)
    except OSError as error:
        raise Fault(f"the session's proxy cannot be reached ({error.strerror or error})") from error
    place = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
    sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(65536)
        if not data or len(answer) > MAX_HEAD:
            raise Fault("the session's proxy gave no answer")
        answer += data
    head, _, first = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    if not re.match(r"HTTP/1\.[01] 200 ", status):
        raise Fault(_refusal(place, status, dict(field.partition(": ")[::2] for field in fields)))
    return sock, first


def _refusal(place: str, status: str, fields: dict[str, str]) -> str:
    named = {name.lower(): value for name, value in fields.items()}
    rule, reason = named.get("x-parhelia-rule"), named.get("x-parhelia-reason")
    if rule:
        return f"denied by {rule}: {reason or place}"
    return f"{place}: {reason or status}"


def _up(sock: socket.socket) -> None:
    """From standard input to the server, and the end of it too."""
    try:
        while data := os.read(0, 65536):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other direction sees why


def _down(sock: socket.socket, data: bytes) -> int:
    try:
        while True:
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
            data = sock.recv(65536)
            if not data:
                return 0
    except OSError as error:
        _say(f"parhelia: the connection broke ({error.strerror or error})")
        return FAILED


def _say(text: str) -> None:
    shown = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    os.write(2, f"{shown}\n".encode())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        _say("usage: ssh_proxy.py HOST PORT")
        sys.exit(USAGE)
    code = run(sys.argv[1], sys.argv[2])
    os._exit(code)  # at once: the thread may still wait for input
