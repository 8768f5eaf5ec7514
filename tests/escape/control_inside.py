"""Beside a session: everybody who should not tries the agent's control socket, and one who may.

`control_inside.py SESSION_ID AGENT_ARGV…` prints one JSON object. Standard library only. Runs on this machine or, where
the agent is a container's, in that.
"""

from __future__ import annotations

import json
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TRY = r"""
import glob, json, os, socket, struct, sys
found = {}
for path in sys.argv[2:]:
    for verb in json.loads(sys.argv[1]):
        raw = json.dumps(verb).encode()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            try:
                sock.connect(path)
                try: sock.sendall(struct.pack("!I", len(raw)) + raw)
                except OSError: pass
                found[f"{os.path.basename(path)} {verb['verb']}"] = json.loads(sock.recv(65536)[4:])["exit"]
            except OSError as error:
                found[f"{os.path.basename(path)} {verb['verb']}"] = type(error).__name__
print(json.dumps(found), flush=True)
"""
VERBS = json.dumps(
    [
        {"verb": "status"},
        {"verb": "reload"},
        {"verb": "lockdown", "measure": "cut", "cause": "attack"},
        {"verb": "lift", "cause": "attack"},
    ]
)
INSIDE = r"""
import json, os, subprocess, sys, time
go, script, verbs = sys.argv[1:4]
while not os.path.exists(go): time.sleep(0.05)
paths = open(go).read().split()
listed = [line.split()[7] for line in open("/proc/net/unix") if "control.sock" in line]
subprocess.run(["/usr/bin/python3", "-c", script, verbs, *dict.fromkeys([*paths, *listed])])
"""
SECONDS = 60.0


def attempt(account: str, paths: list[str]) -> Any:
    """What a process of this account comes to, outside of the session."""
    entry = pwd.getpwnam(account)
    argv = ["/usr/bin/python3", "-c", TRY, VERBS, *paths]
    done = subprocess.run(
        argv, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], cwd="/", capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    return json.loads(done.stdout or "{}") or done.stderr


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"in vain waited for {what}")
        time.sleep(0.02)


def listens(path: Path) -> bool:
    """Whether somebody takes what is asked there; who asks nothing leaves nothing."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def main() -> None:
    ident, *argv = sys.argv[1:]
    words = [] if argv[-1] == "--" else ["--"]
    go = Path(f"/tmp/control-go-{ident}")
    command = ["/usr/bin/python3", "-c", INSIDE, str(go), TRY, VERBS]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen([*argv, *words, *command], **pipes, text=True)
    try:
        root = Path("/run/parhelia")
        until(lambda: [*root.glob(f"{ident}-*/control/control.sock")] or run.poll() is not None, "the control socket")
        (real,) = root.glob(f"{ident}-*/control/control.sock")
        until(lambda: listens(real), "it to listen")
        paths = [str(real)]
        seen: dict[str, Any] = {"mode": real.stat().st_mode & 0o777}
        seen |= {account: attempt(account, paths) for account in ("nobody", "session", "parhelia", "daemon", "root")}
        go.write_text(" ".join([*paths, str(root / "control.sock")]))
        assert run.stdout is not None
        out, seen["stderr"] = run.communicate(timeout=SECONDS)
        seen["inside"] = json.loads(out or "{}")
    finally:
        go.unlink(missing_ok=True)
        run.kill()
    print(json.dumps(seen))


main()
