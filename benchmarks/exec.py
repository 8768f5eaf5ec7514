"""What exec supervision costs: spawn a program N times with and without it, interleaved, and print the ratio.

Run as root: ``.venv/bin/python -m benchmarks.exec [-n 300] [-r 5] [--program /bin/true]``. Three variants per round:
no filter, the filter alone, the filter with the supervisor (real gate, an empty command policy). A spawn is one
posix_spawn of the program by a child of this process, and its wait.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime

from agent.enforce.commands.supervisor import ExecSupervisor
from agent.gate import Gate
from agent.linux import process, seccomp
from agent.policy.model import CommandSection, Layer, Policy
from agent.policy.request import CommandRequest, Origin
from agent.record.event import Event
from agent.session.filter import FilterOptions, build
from agent.shell.requests import from_argv
from tests.enforce.commands.filtered import GID, UID, Filtered

PLAIN, FILTERED, SUPERVISED = "plain", "filter", "supervised"


class Discard:
    """A recorder for events that nobody reads."""

    def post(self, event: Event) -> None:
        """Nothing is kept."""

    def accept(self, event: Event) -> None:
        """Nothing is kept."""


def spawn_repeatedly(program: str, count: int) -> float:
    """Seconds per spawn and wait."""
    started = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn(program, [program], {}), 0)
    return (time.perf_counter() - started) / count


def in_child(prepare: Callable[[], None], program: str, count: int) -> float:
    """The same in a child that runs as the session's user after `prepare`."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(GID, GID, GID)
            os.setresuid(UID, UID, UID)
            process.set_no_new_privs()
            prepare()
            os.write(write_end, struct.pack("=d", spawn_repeatedly(program, count)))
        finally:
            os._exit(0)
    os.close(write_end)
    answer = os.read(read_end, 8)
    os.close(read_end)
    os.waitpid(child, 0)
    return float(struct.unpack("=d", answer)[0])


def supervised(program: str, count: int, latencies: list[float]) -> float:
    """The same under the whole exec ring."""
    policy = Policy(layers=(Layer(source="benchmark", commands=CommandSection()),), digest="0" * 64)

    def request(argv: tuple[str, ...], exe: str, cwd: str) -> CommandRequest:
        today = datetime.now(UTC).date()
        return from_argv(argv, exe=exe, cwd=cwd, home="/", today=today, origin=Origin("exec"), supervised=True)

    read_end, write_end = os.pipe()

    def spawns() -> None:
        os.write(write_end, struct.pack("=d", spawn_repeatedly(program, count)))
        os._exit(0)

    session = Filtered(["/bin/true"], before_exec=spawns)
    supervisor = ExecSupervisor(
        session.listener,
        Gate(lambda: policy, Discard(), "session:benchmark"),
        request,
        session_uid=UID,
        session_gid=GID,
        actor="session:benchmark",
        post=Discard().post,
        observe=latencies.append,
    )
    supervisor.start()
    session.go()
    session.finish()
    supervisor.stop()
    session.close()
    os.close(write_end)
    answer = os.read(read_end, 8)
    os.close(read_end)
    return float(struct.unpack("=d", answer)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--count", type=int, default=300, help="spawns per variant and round")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--program", default="/bin/true")
    options = parser.parse_args()
    bare = build(FilterOptions(notify_exec=False, jail=False, shared_uid=False))
    found: dict[str, list[float]] = {PLAIN: [], FILTERED: [], SUPERVISED: []}
    latencies: list[float] = []
    for _ in range(options.rounds):
        found[PLAIN].append(in_child(lambda: None, options.program, options.count))
        found[FILTERED].append(in_child(lambda: seccomp.install(bare) and None, options.program, options.count))
        found[SUPERVISED].append(supervised(options.program, options.count, latencies))
    plain = statistics.median(found[PLAIN])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"{name:<12}{middle * 1e6:9.0f} us per spawn   x{middle / plain:.2f}   +{(middle - plain) * 1e6:.0f} us")
    deciles = statistics.quantiles(latencies, n=100)
    print(f"answers     {deciles[49] * 1e6:9.0f} us median, {deciles[98] * 1e6:.0f} us p99, {len(latencies)} answers")


if __name__ == "__main__":
    main()
