"""Inside a container: start a session that keeps trying to get out, kill one part of the agent, tell what is left.

`death_inside.py VICTIM_MODULE SESSION_USER RAW_PORT AGENT_ARGV…` prints one JSON object. Standard library only.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time

ATTACK = """
import socket, sys, time
print("up", flush=True)
for _ in range(1200):
    try: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
    except OSError: pass
    time.sleep(0.05)
"""


def processes() -> dict[int, tuple[int, list[bytes]]]:
    """pid -> (uid, argv) of everything alive."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
            with open(f"/proc/{entry}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] != "Z":
                    found[int(entry)] = (os.stat(f"/proc/{entry}").st_uid, argv)
        except (OSError, ValueError):
            continue
    return found


def main() -> None:
    victim, user, port, *agent = sys.argv[1:]
    uid = pwd.getpwnam(user).pw_uid
    command = ["/bin/sh", "-c", 'setsid python3 -c "$0" "$1" & wait', ATTACK, port]
    run = subprocess.Popen([*agent, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    if run.stdout.readline() != "up\n":
        raise SystemExit(run.communicate()[1])
    pid = min(pid for pid, (_, argv) in processes().items() if b"-m" in argv and victim.encode() in argv)
    os.kill(pid, signal.SIGKILL)
    for _ in range(1200):
        left = [
            pid
            for pid, (owner, argv) in processes().items()
            if owner == uid or (b"-m" in argv and b"agent." in b" ".join(argv))
        ]
        left = [pid for pid in left if pid != os.getpid()]
        if not left:
            break
        time.sleep(0.05)
    print(json.dumps({"left": left, "status": run.wait(60)}))


main()
