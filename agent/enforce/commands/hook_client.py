#!/usr/bin/python3 -IS
"""The hook that a coding agent starts before each tool call. One file, standard library only, Python 3.9 or newer.

It hands the call on standard input to the agent's daemon and gives back its answer. Rules:
- it exits with 0 (no objection) or 2 (blocked), never anything else: Claude Code and others let a call run where a hook
  ends in any other way;
- every fault, a missing daemon and a time-out included, is a block, with the reason on stderr;
- the daemon is found where this file says, never by the environment, which a repository's settings can change;
- the daemon must be root or the owner of this file (SO_PEERCRED, unix(7); in gVisor, which answers the caller's own uid
  there, the socket file must be root's; an agent without root must be an ancestor); anybody else's answer is not read.

The same in C, without the 30 ms of a Python's start, is native/parhelia_hook.c.

Usage: hook_client.py [claude-code|codex|gemini|cursor] [--socket PATH]
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import socket
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
SOCKET = "/run/parhelia/hook.sock"
SOCKETS_OF_SESSIONS = "/run/parhelia/*/public/hook.sock"
PROTOCOLS = ("claude-code", "codex", "gemini", "cursor")
TIMEOUT = 20
"""Seconds for everything; less than what the hook's settings grant it."""
MAX_INPUT = 64 << 20
MAX_ANSWER = 64 << 10
BLOCKED = 2
HEADER = struct.Struct("!2sBBII")
"""Of the answer; what travels is defined in hook_wire.py."""
UCRED = struct.Struct("3i")
"""struct ucred: pid, uid, gid; unix(7)."""


class Fault(Exception):
    """Why no answer could be had."""


def run(protocol: str, path: str | None) -> int:
    """Ask and answer; returns 0 or 2."""
    try:
        signal.signal(signal.SIGALRM, _too_late)
        signal.alarm(TIMEOUT)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _too_late)
        permit, output, message = _ask(protocol, path)
        _write(2, message)
        _write(1, output)
        if permit:
            return 0
    except Fault as fault:
        _refuse(f"parhelia: denied by agent-fault: {fault}")
    except BaseException as error:
        _refuse(f"parhelia: denied by agent-fault: the hook failed ({type(error).__name__})")
    return BLOCKED


def main(arguments: list[str]) -> int:
    """The command line, without argparse (start-up time)."""
    path = None
    protocol = None
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--socket" and position + 1 < len(arguments):
            path = arguments[position + 1]
            position += 1
        elif word.startswith("--socket="):
            path = word[len("--socket=") :]
        elif protocol is None and word in PROTOCOLS:
            protocol = word
        else:
            _refuse(f"parhelia: usage: hook_client.py [{'|'.join(PROTOCOLS)}] [--socket PATH]")
            return BLOCKED
        position += 1
    return run(protocol or PROTOCOLS[0], path)


def find_socket() -> str:
    """The socket beside this file, the one of this machine, or that of its only session. Raises Fault."""
    beside = HERE + "/hook.sock"
    for candidate in (beside, SOCKET):
        if os.path.exists(candidate):  # noqa: PTH110  (pathlib would be most of the start-up time)
            return candidate
    found = glob.glob(SOCKETS_OF_SESSIONS)  # noqa: PTH207
    if len(found) == 1:
        return found[0]
    raise Fault("the agent is not running here" if not found else "several sessions run here; say which by --socket")


def _ask(protocol: str, path: str | None) -> tuple[bool, bytes, bytes]:
    """Whether the call may go on, and what belongs on stdout and stderr. Raises Fault."""
    try:
        answer = _exchange(path or find_socket(), b"parhelia-hook 1 %s\n" % protocol.encode() + _read_input())
    except OSError as error:
        raise Fault(f"the agent cannot be reached ({error.strerror or error})") from error
    if not answer:
        raise Fault("the agent gave no answer")
    if len(answer) < HEADER.size:
        raise Fault("the agent's answer is malformed")
    magic, version, status, output, message = HEADER.unpack_from(answer)
    if (magic, version, len(answer)) != (b"PH", 1, HEADER.size + output + message) or status not in (0, BLOCKED):
        raise Fault("the agent's answer is malformed")
    return status == 0, answer[HEADER.size : HEADER.size + output], answer[HEADER.size + output :]


def _exchange(path: str, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.settimeout(TIMEOUT)
        server.connect(path)
        pid, uid, _ = UCRED.unpack(server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        owner = os.stat(__file__).st_uid  # noqa: PTH116
        if uid not in (0, owner) and not (uid == os.getuid() and (_bound_by_root(path) or _is_ancestor(pid))):
            raise Fault(f"the socket belongs to uid {uid}, not to the agent")
        try:
            server.sendall(message)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # an answer may have come before all was sent
        parts: list[bytes] = []
        size = 0
        while True:
            part = server.recv(65536)
            if not part:
                return b"".join(parts)
            size += len(part)
            if size > MAX_ANSWER:
                raise Fault("the agent's answer is too long")
            parts.append(part)


def _bound_by_root(path: str) -> bool:
    """gVisor's SO_PEERCRED answers the caller's own uid. A socket file of root's, in a directory where nobody else can
    make one, says the same: only root can have bound it."""
    real = os.path.realpath(path)
    parent = os.stat(os.path.dirname(real))  # noqa: PTH116, PTH120
    return os.lstat(real).st_uid == 0 and parent.st_uid == 0 and parent.st_mode & 0o022 == 0


def _is_ancestor(pid: int) -> bool:
    """An agent without root has the session's uid, and is an ancestor of all that runs in it (proc_pid_stat(5))."""
    at = os.getppid()
    while at > 0 and at != pid:
        with open(f"/proc/{at}/stat", "rb") as file:
            at = int(file.read(1024).rpartition(b")")[2].split()[1])
    return at == pid > 0


def _read_input() -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        part = os.read(0, 1 << 16)
        if not part:
            return b"".join(parts)
        size += len(part)
        if size > MAX_INPUT:
            raise Fault(f"the call is larger than {MAX_INPUT} bytes")
        parts.append(part)


def _write(descriptor: int, data: bytes) -> None:
    """Unbuffered: a full or closed pipe must not change the exit status."""
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        if descriptor == 1:
            raise


def _refuse(message: str) -> None:
    with contextlib.suppress(BaseException):  # the exit status says it
        _write(2, message.encode("utf-8", "replace") + b"\n")


def _too_late(_number: int, _frame: object) -> None:
    """Ends at once: an exception could be swallowed on its way."""
    _refuse("parhelia: denied by agent-fault: the hook was stopped or took too long")
    os._exit(BLOCKED)


if __name__ == "__main__":
    status = BLOCKED
    try:
        status = main(sys.argv[1:])
    finally:
        os._exit(status)
