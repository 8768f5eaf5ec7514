"""What a coding agent waits for one tool call: the hook client's whole life against a Python that does nothing.

`python -m benchmarks.hook [ROUNDS]`: interleaved rounds of (a) `python3 -IS -c pass`, (b) the hook client with a
harmless Bash call, (c) the same question over an open socket, without a process. Medians in ms, and ratios to (a).
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.daemon.policy_store import read_policy
from agent.enforce.commands import hook_client
from agent.enforce.commands.hook_server import HookServer
from agent.gate import Gate
from agent.record.event import Event

ROUNDS = 30
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
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


def serve(path: str, ready: threading.Event) -> None:
    async def run() -> None:
        policy = read_policy([])
        server = HookServer(path, Gate(lambda: policy, Nothing(), "session:bench"), home="/home/session")
        await server.start()
        ready.set()
        await asyncio.Event().wait()

    asyncio.run(run())


def milliseconds(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as directory:
        path, ready = f"{directory}/hook.sock", threading.Event()
        threading.Thread(target=serve, args=(path, ready), daemon=True).start()
        ready.wait(30)
        call = json.dumps(CALL).encode()
        question = json.dumps({"protocol": "claude-code", "payload": CALL}).encode()

        def bare() -> None:
            subprocess.run([PYTHON, "-IS", "-c", "pass"], check=True)

        def client() -> None:
            argv = [PYTHON, "-IS", hook_client.__file__, "claude-code", "--socket", path]
            subprocess.run(argv, input=call, stdout=subprocess.DEVNULL, check=True)

        def asked() -> None:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                peer.sendall(question)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass

        taken: dict[str, list[float]] = {"bare python": [], "hook client": [], "question alone": []}
        for _ in range(rounds):
            for name, action in zip(taken, (bare, client, asked), strict=True):
                taken[name].append(milliseconds(action))
    base = statistics.median(taken["bare python"])
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{name:15} {median:8.2f} ms   {median / base:5.2f} x bare python")


if __name__ == "__main__":
    main()
