"""Starting the agent's own processes: guard and egress, each an interpreter of its own with nothing but its channels.

An interpreter and its imports take longest of a start, so `run` has both begin before it has read what it was asked
(`start`), and the keeper, which is that process, takes them over; later ones are started by the keeper.
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


class Workers(NamedTuple):
    """Those of a start: process ids of this process's children; descriptors of the channel to the guard and of the file
    for the last words of the egress process."""

    guard: int
    egress: int
    channel: int
    last_words: int

    def arguments(self) -> list[str]:
        """For the program that this process becomes, which then holds the descriptors."""
        os.set_inheritable(self.channel, True)
        os.set_inheritable(self.last_words, True)
        return [str(each) for each in self]

    @staticmethod
    def taken_over(arguments: Sequence[str]) -> Workers:
        """The inverse of `arguments`, after the exec. Raises ValueError, TypeError, OSError."""
        workers = Workers(*map(int, arguments))
        os.set_inheritable(workers.channel, False)
        os.set_inheritable(workers.last_words, False)
        return workers

    def end(self) -> None:
        """There will be no session. Nothing has begun."""
        for pid in (self.guard, self.egress):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        os.close(self.channel)
        os.close(self.last_words)


def start(environment: Mapping[str, str]) -> Workers:
    """The first guard and egress process of a run, with this environment. Raises OSError."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  (imports nothing that takes time)
        with suppress(OSError):
            os.set_inheritable(int(name), int(name) in _STREAMS)  # what the operator's shell has open stays here
    protect()
    os.umask(0o022)
    egress, last_words, guard_side = start_egress(environment)
    with guard_side:
        guard, ours = start_guard(guard_side, environment, "--launcher")
    return Workers(guard, egress, ours.detach(), last_words)


def start_guard(egress: socket.socket, environment: Mapping[str, str], *more: str) -> tuple[int, socket.socket]:
    """A guard with this end of the egress process's channel, which stays the caller's: its process id, and the channel
    to it. Raises OSError."""
    ours, guards = pair()
    with guards:
        arguments = ["--keeper", str(guards.fileno()), "--egress", str(egress.fileno()), *more]
        return _spawn(GUARD, arguments, [guards.fileno(), egress.fileno()], environment), ours


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
