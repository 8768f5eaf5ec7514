"""What a coding agent waits for one tool call: the hook clients' whole lives, beside programs that do nothing.

`python -m benchmarks.hook [ROUNDS]`: interleaved rounds, in ms (the lowest tenth shows what other work on the machine
hides). A client's time is a process's from posix_spawn to its end: started, asked with a harmless Bash call, answered.

  bare process    /bin/true: what starting any program costs here
  native client   the C client
  bare python     python3 -IS -c pass
  python client   hook_client.py
  question alone  the same question over a socket, without a process: the guard's share
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.daemon.policies.store import read_policy
from agent.enforce.commands import hook_client
from agent.enforce.commands.hook_server import HookServer
from agent.gate import Gate
from agent.record.event import Event

ROUNDS = 300
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
BUILD = Path(__file__).parents[1] / "container" / "build-hook.sh"
CALL = {
    "hook_event_name": "PreToolUse",
    "tool_name": "Bash",
    "tool_input": {"command": "git status && ls -l"},
    "cwd": "/",
}


class Nothing:
    """A recorder; allowed commands leave no line, so it is not asked."""

    def post(self, event: Event) -> None:
        raise AssertionError(event)

    accept = post


async def serve(path: str) -> None:
    """The guard's part, in a process of its own as in life."""
    policy = read_policy([])
    server = HookServer(path, Gate(lambda: policy, Nothing(), "session:bench"), home="/home/session")
    await server.start()
    print("up", flush=True)
    await asyncio.Event().wait()


def process(argv: Sequence[str], call: Path) -> Callable[[], None]:
    """Start it with the call on its stdin, and wait."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(call), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]

    def run() -> None:
        pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"{argv[0]} ended with {status}")

    return run


def question(path: str) -> Callable[[], None]:
    data = b"parhelia-hook 1 claude-code\n" + json.dumps(CALL).encode()

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass

    return ask


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as directory:
        path, call, native = f"{directory}/hook.sock", Path(directory, "call"), f"{directory}/parhelia-hook"
        call.write_text(json.dumps(CALL))
        subprocess.run([BUILD, native], check=True)
        argv = [sys.executable, "-m", "benchmarks.hook", "--serve", path]
        guard = subprocess.Popen(argv, stdout=subprocess.PIPE)
        if guard.stdout is None or guard.stdout.readline() != b"up\n":
            raise RuntimeError("the guard does not start")
        actions: dict[str, Callable[[], None]] = {"bare process": process(("/bin/true",), call)}
        if Path(native).exists():
            actions["native client"] = process((native, "claude-code", "--socket", path), call)
        actions["bare python"] = process((PYTHON, "-IS", "-c", "pass"), call)
        client = (PYTHON, "-IS", str(hook_client.__file__), "claude-code", "--socket", path)
        actions["python client"] = process(client, call)
        actions["question alone"] = question(path)
        taken: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(rounds):
            for name, action in actions.items():
                started = time.perf_counter()
                action()
                taken[name].append((time.perf_counter() - started) * 1000)
        guard.kill()
        guard.wait()
    for name, values in taken.items():
        values.sort()
        tenth, last = values[len(values) // 10], values[len(values) * 99 // 100]
        print(f"{name:15} {statistics.median(values):8.3f} ms median   {tenth:8.3f} ms p10   {last:8.3f} ms p99")


if __name__ == "__main__":
    main()
