"""Beside a session: kills parts of its agent when the session asks, and tells how it went.

`killer.py AGENT_ARGV…` starts the agent. A line `kill MODULE` of the session's output is answered on its input with
`killed` once the process that runs this module is dead; other lines are kept. Prints one JSON object: `lines`,
`stderr`, `status`, and `left`: how many of the processes are alive that descended from the agent. Standard library
only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 3000
"""Hundredths of a second: a part that is being replaced on a busy machine takes its time."""


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def part(root: int, module: str) -> int:
    for pid in (root, *descendants(root)):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
        except OSError:
            continue
        if b"-m" in argv and module.encode() in argv:
            return pid
    return 0


def kill(root: int, module: str) -> str:
    for _ in range(PATIENCE):
        pid = part(root, module)
        if pid:
            break
        time.sleep(0.01)
    else:
        return "missing"
    os.kill(pid, signal.SIGKILL)
    for _ in range(PATIENCE):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return "killed"
        except OSError:
            return "killed"
        time.sleep(0.01)
    return "alive"


def main() -> None:
    pipe = subprocess.PIPE
    run = subprocess.Popen(sys.argv[1:], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert run.stdin is not None and run.stdout is not None and run.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(run.stderr.read()), daemon=True)
    reader.start()
    lines: list[str] = []
    seen: set[int] = set()
    for line in run.stdout:
        word, _, module = line.strip().partition(" ")
        if word != "kill":
            lines.append(line.rstrip("\n"))
            continue
        seen |= set(descendants(run.pid))
        answer = kill(run.pid, module)
        try:
            run.stdin.write(f"{answer}\n")
            run.stdin.flush()
        except OSError:
            lines.append("nobody to tell")
    status = run.wait(60)
    for _ in range(PATIENCE):
        left = [pid for pid in seen if os.path.exists(f"/proc/{pid}") and os.path.exists(f"/proc/{pid}/exe")]
        if not left:
            break
        time.sleep(0.01)
    reader.join(5)
    print(json.dumps({"lines": lines, "stderr": "".join(errors), "status": status, "left": len(left)}))


if __name__ == "__main__":
    main()
