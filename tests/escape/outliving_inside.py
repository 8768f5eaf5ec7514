"""As root: start sessions whose processes try to outlive them, end each in another way, and tell what is left.

`outliving_inside.py SESSION_USER AGENT_ARGV…` prints one JSON object. Standard library only.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time

MARK = f"outliving-{os.getpid()}"
SCENARIOS = {
    "its own end": [],
    "the death of its init": ["agent.session.launch"],
    "the death of keeper and guard at once": ["agent.daemon.guard", "agent.daemon.keeper"],
    "the death of guard and init at once": ["agent.daemon.guard", "agent.session.launch"],
}
ATTACK = r"""
import ctypes, os, signal, sys, time
mark, scenario = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
end = time.monotonic() + 120
def rest():
    while time.monotonic() < end:
        time.sleep(1)
    os._exit(0)
def apart():
    libc.prctl(1, 0, 0, 0, 0)                           # PR_SET_PDEATHSIG: none
    os.setsid()
def stubborn():
    apart()
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
def twice():
    apart()
    if os.fork(): os._exit(0)
def stopped():
    apart()
    os.kill(os.getpid(), signal.SIGSTOP)
def hop():
    apart()
    while time.monotonic() < end:
        if os.fork(): os._exit(0)
def holder():
    apart()
    libc.prctl(36, 1, 0, 0, 0)                          # PR_SET_CHILD_SUBREAPER
    if os.fork() == 0:
        if os.fork(): os._exit(0)
kinds = [apart, stubborn, twice, stopped, holder]
if scenario == "its own end": kinds.append(hop)          # costs a core as long as it lives
for kind in kinds:
    if os.fork() == 0:
        kind()
        rest()
CLONE_PARENT, NUMBER = 0x8000, {"x86_64": 56, "aarch64": 220}[os.uname().machine]
if libc.syscall(NUMBER, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:  # a child of the session's init
    apart()
    rest()
time.sleep(0.3)
print("up", flush=True)
if scenario == "its own end":
    time.sleep(1)                                       # to be counted before
    os._exit(3)
libc.prctl(1, 0, 0, 0, 0)
rest()
"""


def processes() -> dict[int, tuple[int, int, list[bytes]]]:
    """pid -> (ppid, uid, argv) of everything alive."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            if fields[0] != "Z":
                found[int(entry)] = (int(fields[1]), os.stat(f"/proc/{entry}").st_uid, argv)
        except (OSError, ValueError):
            continue
    return found


def agents(top: int) -> dict[int, str]:
    """The agent's processes of the run whose keeper is `top`, with their modules."""
    listed = processes()
    mine = {top}
    while more := {pid for pid, (parent, _, _) in listed.items() if parent in mine} - mine:
        mine |= more
    modules = {pid: [w.decode() for w in listed[pid][2] if w.startswith(b"agent.")] for pid in mine if pid in listed}
    return {pid: words[0] for pid, words in modules.items() if words}


def ended_by(scenario: str, victims: list[str], uid: int, agent: list[str]) -> dict[str, object]:
    command = [*agent, "--", "/usr/bin/python3", "-c", ATTACK, MARK, scenario]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    if run.stdout.readline() != "up\n":
        raise SystemExit(run.communicate()[1])
    seen = sum(1 for _, owner, argv in processes().values() if owner == uid and MARK.encode() in argv)
    parts = agents(run.pid)
    chosen = [pid for module in victims for pid, name in parts.items() if name == module]
    if len(chosen) < len(victims):
        raise SystemExit(f"not found: {victims} in {parts}")
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in chosen:
            os.kill(pid, number)
    status = run.wait(60)
    deadline, quiet = time.monotonic() + 50, 0
    while time.monotonic() < deadline and quiet < 10:
        listed = processes()
        left = {pid for pid, (_, owner, argv) in listed.items() if owner == uid and MARK.encode() in argv}
        left |= {pid for pid in parts if pid in listed and parts[pid].encode() in listed[pid][2]}
        quiet = 0 if left else quiet + 1
        time.sleep(0.02)
    return {"status": status, "seen": seen, "left": sorted(left)}


def main() -> None:
    user, *agent = sys.argv[1:]
    uid = pwd.getpwnam(user).pw_uid
    print(json.dumps({name: ended_by(name, victims, uid, agent) for name, victims in SCENARIOS.items()}))


main()
