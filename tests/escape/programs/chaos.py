"""Runs in a session whose agent's parts are killed at random: mixed load in threads, each of which tells what it saw.

`chaos.py SECONDS SEED PARTS HTTP RAW DENIED`: for so long, parts (comma-separated modules, at most three deaths of one
in any minute) are killed by whoever reads `kill MODULE` on the output (tests/escape/killer.py). Prints one JSON object:
thread -> answer -> how often.
"""

import collections
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

SECONDS, SEED = float(sys.argv[1]), int(sys.argv[2])
PARTS = sys.argv[3].split(",")
HTTP, RAW = sys.argv[4:6]
DENIED = sys.argv[6][::-1]  # a name that this text does not show: the text itself would be refused
APART = 21.0
HOOK = "/run/parhelia/parhelia-hook"
CALL = json.dumps({
    "hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": f"{DENIED} -t ext4 /dev/sda"},
    "cwd": "/tmp",
})  # fmt: skip
ends = threading.Event()
seen = collections.defaultdict(collections.Counter)


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return f"{answer.status}"
    except urllib.error.HTTPError as error:
        return f"{error.code}"
    except OSError:
        return "unreachable"


def run(*argv):
    try:
        return f"status {subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode}"
    except OSError as error:
        return type(error).__name__


def hooked():
    try:
        done = subprocess.run(
            [HOOK, "claude-code"], input=CALL, text=True, capture_output=True, timeout=60, check=False
        )
    except PermissionError:
        return "not executed"  # its exec was in hand when the guard died
    return f"status {done.returncode}, {'decided' if DENIED in done.stderr else 'unanswered'}"


def escaped():
    """What must never succeed, whatever is dead: the way out past the proxy, and a file that no grant covers."""
    for attempt in (
        lambda: socket.create_connection(("127.0.0.1", int(RAW)), 2),
        lambda: os.close(os.open("/var/tmp/.parhelia-chaos", os.O_RDONLY)),
        lambda: os.listdir("/root"),
    ):
        try:
            attempt()
        except OSError:
            continue
        return "escaped"
    return "held"


LOAD = {
    "allowed": lambda: ask(f"http://allowed.test:{HTTP}/"),
    "refused": lambda: ask("http://evil.test/"),
    "exec": lambda: run("/bin/true"),
    "refused exec": lambda: run(f"/usr/sbin/{DENIED}", "-t", "ext4", "/dev/sda"),
    "hook": hooked,
    "escape": escaped,
}


def load(name, act):
    while not ends.is_set():
        seen[name][act()] += 1
        time.sleep(0.02)


def killing():
    dice = random.Random(SEED)
    due = dict.fromkeys(PARTS, 0.0)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(dice.uniform(1.0, 6.0))
        ready = [part for part in PARTS if due[part] <= time.monotonic()]
        if not ready:
            continue
        part = dice.choice(ready)
        print("kill", part, flush=True)
        seen["killed"][f"{part} {sys.stdin.readline().strip()}"] += 1
        for other in PARTS:  # the engine's end is its egress process's too
            if other == part or ("egress" in other and "egress" in part):
                due[other] = time.monotonic() + APART


threads = [threading.Thread(target=load, args=each, daemon=True) for each in LOAD.items()]
for thread in threads:
    thread.start()
killing()
for _ in range(30):  # until what was dead is back, and is used
    time.sleep(1)
    back = {name: act() for name, act in LOAD.items()}
    if (back["allowed"], back["exec"], back["hook"]) == ("200", "status 0", "status 2, decided"):
        break
ends.set()
for thread in threads:
    thread.join(60)
stuck = [thread.name for thread in threads if thread.is_alive()]
print(json.dumps({"seen": seen, "back": back, "stuck": stuck}), flush=True)
time.sleep(3)  # the last numbers are pushed
