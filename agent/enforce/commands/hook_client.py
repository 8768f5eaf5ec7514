#!/usr/bin/python3 -IS
"""The hook that a coding agent starts before each tool call. One file, standard library only, Python 3.9 or newer.

It hands the call on standard input to the agent's daemon and gives back its answer. Rules:
- it exits with 0 (no objection) or 2 (blocked), never anything else: Claude Code and others let a call run where a hook
  ends in any other way;
- every fault, a missing daemon and a time-out included, is a block, with the reason on stderr;
- the daemon is found where this file says, never by the environment, which a repository's settings can change;
- the daemon must be root or the owner of this file (SO_PEERCRED, unix(7); in gVisor, which answers the caller's own uid
  there, the socket file must be root's); anybody else's answer is not read.

Usage: hook_client.py [claude-code|codex|gemini|cursor] [--socket PATH]
"""

from __future__ import annotations

import contextlib
import glob
import json
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
MAX_ANSWER = 1 << 20
BLOCKED = 2
NOT_NEEDED = ("content", "new_string", "old_string", "new_source", "edits")
"""What files are to contain: nothing is decided on it, and it can be large or secret."""


class Fault(Exception):
    """Why no answer could be had."""


def run(protocol: str, path: str | None) -> int:
    """Ask and answer; returns 0 or 2."""
    try:
        signal.signal(signal.SIGALRM, _too_late)
        signal.alarm(TIMEOUT)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _too_late)
        answer = _ask(protocol, path)
        permit = answer.get("permit") is True
        if permit:
            _write(1, str(answer.get("output", "")))
            return 0
        _write(2, str(answer.get("message") or "parhelia: denied"))
        _write(1, str(answer.get("output", "")))
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


def _ask(protocol: str, path: str | None) -> dict[str, object]:
    data = _read_input()
    try:
        payload = json.loads(data)
    except ValueError as error:
        raise Fault("the call is not JSON") from error
    if not isinstance(payload, dict):
        raise Fault("the call is not a JSON object")
    given = payload.get("tool_input")
    if isinstance(given, dict):
        payload["tool_input"] = {key: value for key, value in given.items() if key not in NOT_NEEDED}
    message = json.dumps({"protocol": protocol, "payload": payload}).encode()
    try:
        answer = json.loads(_exchange(path or find_socket(), message))
    except OSError as error:
        raise Fault(f"the agent cannot be reached ({error.strerror or error})") from error
    except ValueError as error:
        raise Fault("the agent gave no answer") from error
    if not isinstance(answer, dict):
        raise Fault("the agent's answer is malformed")
    return answer


def _exchange(path: str, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.settimeout(TIMEOUT)
        server.connect(path)
        _, uid, _ = struct.unpack("3i", server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        owner = os.stat(__file__).st_uid  # noqa: PTH116
        if uid not in (0, owner) and not (uid == os.getuid() and _bound_by_root(path)):
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


def _write(descriptor: int, text: str) -> None:
    """Unbuffered: a full or closed pipe must not change the exit status."""
    data = (text + "\n").encode("utf-8", "replace")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        if descriptor == 1:
            raise


def _refuse(message: str) -> None:
    with contextlib.suppress(BaseException):  # the exit status says it
        _write(2, message)


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
