"""Acts that want the agent, or who asks it, to believe what is not so, of `agent.py`; run by `kit.py`, see there."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import termios
import threading
import time

from kit import GRANTED, IN_GVISOR, LIBC, Absent, Resisted, attack, call, dangerous

CLIENTS = (
    ["/usr/local/lib/parhelia/parhelia-hook"],
    ["/run/parhelia/parhelia-hook"],
    ["/usr/bin/python3", "-IS", "/run/parhelia/hook_client.py"],
)
"""The hook's client where an image has it, and where a session finds it."""


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
