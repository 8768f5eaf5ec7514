"""Starting the agent's own processes: guard and egress, each an interpreter of its own with nothing but its channels.

Interpreters and their imports take longest of a start, the guard's most of all, so `run` has it begin before it has
read what it was asked (`start`), and the keeper, which is that process, takes it over. The keeper starts the egress
process, which has time enough then: two processors are not to be shared by three.
Rules kept here: a worker is told nothing by its start: what it is to do comes by the channel, without which it ends;
its environment is clean; it gets no descriptor but its own. Imports nothing that takes time.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from agent.channel import pair
from agent.linux.memory import nameless

OOM_SCORE = -500
"""proc_pid_oom_score_adj(5)."""
GUARD = "agent.daemon.guard"
EGRESS = "agent.enforce.egress.main"
_STREAMS = (0, 1, 2)


class First(NamedTuple):
    """The guard of a start: its process id, a child of this process, and the descriptor of the channel to it."""

    guard: int
    channel: int

    def arguments(self) -> list[str]:
        """For the program that this process becomes, which then holds the channel."""
        os.set_inheritable(self.channel, True)
        return [str(each) for each in self]

    @staticmethod
    def taken_over(arguments: Sequence[str]) -> First:
        """The inverse of `arguments`, after the exec. Raises ValueError, TypeError, OSError."""
        first = First(*map(int, arguments))
        os.set_inheritable(first.channel, False)
        return first

    def end(self) -> None:
        """There will be no session. Nothing has begun."""
        with suppress(ProcessLookupError):
            os.kill(self.guard, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.guard, 0)
        os.close(self.channel)


def start(environment: Mapping[str, str]) -> First:
    """The first guard of a run, with this environment. Raises OSError."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  (imports nothing that takes time)
        with suppress(OSError):
            os.set_inheritable(int(name), int(name) in _STREAMS)  # what the operator's shell has open stays here
    protect()
    os.umask(0o022)
    guard, ours = start_guard(environment, "--launcher")
    return First(guard, ours.detach())


def start_guard(environment: Mapping[str, str], *more: str) -> tuple[int, socket.socket]:
    """A guard: its process id, and the channel to it. Raises OSError."""
    ours, guards = pair()
    with guards:
        return _spawn(GUARD, ["--keeper", str(guards.fileno()), *more], [guards.fileno()], environment), ours


def start_egress(environment: Mapping[str, str]) -> tuple[int, int, socket.socket]:
    """An egress process: its process id, the file for what it leaves for the next guard, the guard's end of its
    channel. Raises OSError."""
    last_words = nameless("parhelia-last-words")
    guard_side, egress_side = pair()
    with egress_side:
        arguments = ["--channel", str(egress_side.fileno()), "--last", str(last_words)]
        return _spawn(EGRESS, arguments, [egress_side.fileno(), last_words], environment), last_words, guard_side


def protect() -> None:
    """For this process and those that it starts: the session is to be killed for memory before them, and none leaves an
    image of its memory behind. The session's init undoes the first for itself."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(f"{OOM_SCORE}\n")  # needs CAP_SYS_RESOURCE; without it the session is made the likelier one


def _spawn(module: str, arguments: list[str], descriptors: list[int], environment: Mapping[str, str]) -> int:
    """Start one agent process with only these descriptors beyond the standard streams; stdin and stdout are
    /dev/null."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    argv = [sys.executable, "-I", "-m", module, *arguments]
    try:
        return os.posix_spawn(sys.executable, argv, dict(environment), file_actions=actions, setsid=True)
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
