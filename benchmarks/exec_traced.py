"""What exec supervision behind ptrace costs: programs run with and without it, interleaved, as a ratio and in parts.

Run as root: ``.venv/bin/python -m benchmarks.exec_traced [-n 40] [-r 9]``; in gVisor (with CAP_SYS_PTRACE) it says what
counts, here it says where the time goes. The loads are those of `benchmarks.exec`, and so is the reading of the ratios:
no filter; the filter alone, without anybody to ask; every task traced, and each exec let through at once (`traced`);
the whole ring with the shipped policy, the comparison after the exec included (`supervised`).
"""

from __future__ import annotations

import os
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

from agent.daemon.policies.store import read_policy
from agent.enforce.commands.judge import CONTINUE, ExecJudge
from agent.gate import Gate
from agent.linux import process, seccomp
from agent.policy.request import CommandRequest, Origin
from agent.session.filter import FilterOptions, build
from agent.shell.requests import from_argv
from agent.shell.scripts import Environment
from benchmarks.exec import Discard, arguments, measure
from tests.enforce.commands.filtered import GID, UID
from tests.enforce.commands.traced import Traced

PLAIN, FILTERED, TRACED, SUPERVISED = "plain", "filter", "traced", "supervised"
PARTS = {"_read": "read", "_decide": "decide", "approved": "compare after exec"}


def build_request(argv: tuple[str, ...], exe: str, cwd: str, env: Environment) -> CommandRequest:
    today = datetime.now(UTC).date()
    origin = Origin("exec")
    return from_argv(argv, exe=exe, cwd=cwd, home="/", today=today, origin=origin, supervised=True, environment=env)


def spawn_repeatedly(argv: list[str], count: int, told: int) -> None:
    """Tells the seconds per spawn and wait, and ends."""
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    started = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}), 0)
    os.write(told, struct.pack("=d", (time.perf_counter() - started) / count))
    os._exit(0)


def in_child(prepare: Callable[[], None], argv: list[str], count: int) -> float:
    """Seconds per spawn in a child that runs as the session's user after `prepare`."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(GID, GID, GID)
            os.setresuid(UID, UID, UID)
            process.set_no_new_privs()
            prepare()
            spawn_repeatedly(argv, count, write_end)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    return result(read_end, write_end)


def traced(gate: Gate, argv: list[str], count: int) -> float:
    """The same in a traced session."""
    read_end, write_end = os.pipe()
    session = Traced(["/bin/true"], before_exec=lambda: spawn_repeatedly(argv, count, write_end))
    session.trace(gate, build_request, Discard().post)
    session.finish()
    session.close()
    return result(read_end, write_end)


def result(read_end: int, write_end: int) -> float:
    os.close(write_end)
    answer = os.read(read_end, 8)
    os.close(read_end)
    return float(struct.unpack("=d", answer)[0])


class Patched:
    """The judge's methods replaced while this lasts."""

    def __init__(self, methods: dict[str, Callable[..., object]]) -> None:
        self._methods = methods
        self._kept = {name: getattr(ExecJudge, name) for name in methods}

    def __enter__(self) -> None:
        for name, method in self._methods.items():
            setattr(ExecJudge, name, method)

    def __exit__(self, *_: object) -> None:
        for name, method in self._kept.items():
            setattr(ExecJudge, name, method)


def timed(name: str, taken: dict[str, list[float]]) -> Callable[..., object]:
    method = getattr(ExecJudge, name)

    def step(*arguments: object) -> object:
        started = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            taken[PARTS[name]].append(time.perf_counter() - started)

    return step


def compare(argv: list[str], count: int, rounds: int) -> None:
    """Measure one load and print it."""
    policy = read_policy(())
    gate = Gate(lambda: policy, Discard(), "session:benchmark")
    bare = build(FilterOptions(notify_exec=False, jail=False, shared_uid=False))
    at_once = {"answer": lambda judge, stopped: CONTINUE, "approved": lambda judge, pid: True}

    def let_through() -> float:
        with Patched(at_once):
            return traced(gate, argv, count)

    variants: dict[str, Callable[[], float]] = {
        PLAIN: lambda: in_child(lambda: None, argv, count),
        FILTERED: lambda: in_child(lambda: seccomp.install(bare) and None, argv, count),
        TRACED: let_through,
        SUPERVISED: lambda: traced(gate, argv, count),
    }
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        order = list(variants)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            found[name].append(variants[name]())
    taken: dict[str, list[float]] = defaultdict(list)
    with Patched({name: timed(name, taken) for name in PARTS}):
        traced(gate, argv, count)
    for name, seconds in found.items():
        ratio = statistics.median(one / plain for one, plain in zip(seconds, found[PLAIN], strict=True))
        print(f"  {name:<20}{statistics.median(seconds) * 1e6:9.0f} us   x{ratio:.3f}")
    for part, seconds in taken.items():
        print(f"  {part:<20}{statistics.median(seconds) * 1e6:9.1f} us median of {len(seconds)}")


def main() -> None:
    measure(arguments(__doc__, count=40, rounds=9).parse_args(), compare)


if __name__ == "__main__":
    main()
