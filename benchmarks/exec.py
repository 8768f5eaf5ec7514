"""What exec supervision costs: programs run N times with and without it, interleaved, as a ratio and by its parts.

Run as root: ``.venv/bin/python -m benchmarks.exec [-n 60] [-r 15] [--cpu 1]``. Two loads: one posix_spawn of /bin/true
by a child of this process and its wait; a shell script of some 250 execs of everyday tools on small files. Variants of
each round, in changing order: no filter; the filter without notifications; notifications that are answered at once
(`notify`); the whole ring with the shipped policy, the check after the exec included (`supervised`).

A ratio is the median of the rounds' own ratios; where other work shares the machine, that of the processors' time says
more than that of the clock. The parts are the handlers' time by the clock, of rounds of their own:
what is not in them is the kernel's notifications, two per exec, and the loop around them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import struct
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from agent.daemon.policies.store import read_policy
from agent.enforce.commands.judge import ExecJudge
from agent.enforce.commands.supervisor import ExecSupervisor
from agent.enforce.notify_loop import PROCEED, Answer, NotifyLoop
from agent.gate import Gate
from agent.linux import notify, process, seccomp
from agent.linux.syscalls import number
from agent.policy.request import CommandRequest, Origin
from agent.record.event import Event
from agent.session.filter import FilterOptions, build
from agent.shell.requests import from_argv
from agent.shell.scripts import Environment
from tests.enforce.commands.filtered import GID, UID, Filtered

PLAIN, FILTERED, NOTIFIED, SUPERVISED = "plain", "filter", "notify", "supervised"
_COST = struct.Struct("=dd")
PARTS = {"_read": "read", "_decide": "decide (not remembered)", "_verify": "check after exec"}
SCRIPT = r"""
cd "$(mktemp -d)" || exit 1
i=0
while [ $i -lt 12 ]; do
    i=$(expr $i + 1)
    mkdir -p src/$i
    seq 1 200 > src/$i/numbers
    sed 's/1/one/' src/$i/numbers > src/$i/text
    grep -c one src/$i/text
    cat src/$i/text | tr a-z A-Z > src/$i/upper
    sort -r src/$i/upper | uniq | head -n 3
    cut -c1-2 src/$i/upper > src/$i/cut
    wc -l src/$i/cut
    cp src/$i/cut src/$i/copy
    cmp src/$i/cut src/$i/copy
    mv src/$i/copy src/$i/moved
    basename src/$i/moved
    dirname src/$i/moved
    touch src/$i/stamp
    awk '{ n += $1 } END { print n }' src/$i/numbers
    find src/$i -name '*.x'
    ls -l src/$i
    rm -f src/$i/stamp
done
rm -r src
"""


class Discard:
    """A recorder for events that nobody reads."""

    def post(self, event: Event) -> None:
        """Nothing is kept."""

    def accept(self, event: Event) -> None:
        """Nothing is kept."""


class AtOnce:
    """Lets every call through: what is left is the price of being asked."""

    def answer(self, stopped: notify.Notification, listener: int) -> Answer:
        return PROCEED

    def fault(self, stopped: notify.Notification) -> None:
        """Cannot happen."""

    def overdue(self, stopped: notify.Notification, seconds: float) -> None:
        """Cannot happen."""

    def took(self, stopped: notify.Notification, seconds: float) -> None:
        """Not asked."""


class Cost(NamedTuple):
    """Of one spawn and its wait, in seconds: by the clock, and of processors, the supervisor's included."""

    wall: float
    cpu: float


def spawn_repeatedly(argv: list[str], count: int) -> bytes:
    """The cost, as packed floats."""
    started, used = time.perf_counter(), _used()
    for _ in range(count):
        os.waitpid(os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}), 0)
    return _COST.pack((time.perf_counter() - started) / count, (_used() - used) / count)


def _used() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def in_child(prepare: Callable[[], None], argv: list[str], count: int) -> Cost:
    """The same in a child that runs as the session's user after `prepare`."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(GID, GID, GID)
            os.setresuid(UID, UID, UID)
            process.set_no_new_privs()
            _quietly()
            prepare()
            os.write(write_end, spawn_repeatedly(argv, count))
        finally:
            os._exit(0)
    os.close(write_end)
    answer = os.read(read_end, _COST.size)
    os.close(read_end)
    os.waitpid(child, 0)
    return Cost(*_COST.unpack(answer))


def _quietly() -> None:
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)


def notified(start: Callable[[int], Callable[[], None]], argv: list[str], count: int) -> Cost:
    """The same under a filter that notifies the one who is started with its listener; `start` returns what stops it."""
    read_end, write_end = os.pipe()

    def spawns() -> None:
        _quietly()
        os.write(write_end, spawn_repeatedly(argv, count))
        os._exit(0)

    session = Filtered(["/bin/true"], before_exec=spawns)
    stop = start(session.listener)
    used = time.process_time()
    session.go()
    session.finish()
    used = time.process_time() - used
    stop()
    session.close()
    os.close(write_end)
    answer = os.read(read_end, _COST.size)
    os.close(read_end)
    wall, cpu = _COST.unpack(answer)
    return Cost(wall, cpu + used / count)


def at_once(listener: int) -> Callable[[], None]:
    """The loop alone."""
    numbers = [found for name in ("execve", "execveat", "arch_prctl") if (found := number(name)) is not None]
    eyes = process.FilesystemIdentity(UID, GID)
    loop = NotifyLoop(listener, dict.fromkeys(numbers, AtOnce()), eyes, deadline=5.0)
    loop.start()
    return loop.stop


class Ring:
    """The whole ring, as a guard runs it."""

    def __init__(self) -> None:
        self._policy = read_policy(())
        self.answers: list[float] = []

    def start(self, listener: int) -> Callable[[], None]:
        supervisor = ExecSupervisor(
            listener,
            Gate(lambda: self._policy, Discard(), "session:benchmark"),
            self._request,
            session_uid=UID,
            session_gid=GID,
            actor="session:benchmark",
            post=Discard().post,
            observe=self.answers.append,
            in_force=lambda: self._policy,
        )
        supervisor.start()
        return supervisor.stop

    def _request(self, argv: tuple[str, ...], exe: str, cwd: str, environment: Environment) -> CommandRequest:
        today, origin = datetime.now(UTC).date(), Origin("exec")
        return from_argv(
            argv, exe=exe, cwd=cwd, home="/", today=today, origin=origin, supervised=True, environment=environment
        )


@contextlib.contextmanager
def by_parts(taken: dict[str, list[float]]) -> Iterator[None]:
    """Measure the judge's steps while this lasts."""
    kept = {name: getattr(ExecJudge, name) for name in PARTS}

    def timed(name: str) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            started = time.perf_counter()
            try:
                return kept[name](*arguments)
            finally:
                taken[PARTS[name]].append(time.perf_counter() - started)

        return step

    for name in kept:
        setattr(ExecJudge, name, timed(name))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(ExecJudge, name, method)


def compare(argv: list[str], count: int, rounds: int) -> None:
    """Measure one load and print it."""
    bare = build(FilterOptions(notify_exec=False, jail=False, shared_uid=False))
    ring = Ring()
    taken: dict[str, list[float]] = defaultdict(list)
    variants: dict[str, Callable[[], Cost]] = {
        PLAIN: lambda: in_child(lambda: None, argv, count),
        FILTERED: lambda: in_child(lambda: seccomp.install(bare) and None, argv, count),
        NOTIFIED: lambda: notified(at_once, argv, count),
        SUPERVISED: lambda: notified(ring.start, argv, count),
    }
    found: dict[str, list[Cost]] = {name: [] for name in variants}
    for turn in range(rounds):
        order = list(variants)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            found[name].append(variants[name]())
    answers = statistics.quantiles(ring.answers, n=100)
    with by_parts(taken):
        for _ in range(max(rounds // 5, 1)):
            notified(ring.start, argv, count)
    print(f"  {'':<18}{'clock':>9}{'':11}{'processors':>12}")
    for name, costs in found.items():
        for at, unit in enumerate(Cost._fields):
            values, plain = [cost[at] for cost in costs], [cost[at] for cost in found[PLAIN]]
            ratio = statistics.median(one / base for one, base in zip(values, plain, strict=True))
            text = f"{statistics.median(values) * 1e6:9.0f} us x{ratio:5.3f}"
            print(f"  {name:<18}{text}" if unit == "wall" else f"   {text}", end="\n" if unit == "cpu" else "")
    for part, seconds in taken.items():
        print(f"  {part:<24}{statistics.median(seconds) * 1e6:9.1f} us median of {len(seconds)}")
    print(f"  {'answer to an exec':<24}{answers[49] * 1e6:9.1f} us median, {answers[98] * 1e6:.0f} us p99")


def measure(options: argparse.Namespace, compare: Callable[[list[str], int, int], None]) -> None:
    """What is asked for of the two, by `compare` (argv, its count, rounds)."""
    directory = Path(tempfile.mkdtemp(prefix="parhelia-bench-"))
    try:
        directory.chmod(0o755)
        script = directory / "script"
        script.write_text(SCRIPT)
        if options.only != "script":
            print("spawn of /bin/true, each:")
            compare(["/bin/true"], options.count, options.rounds)
        if options.only != "true":
            print("script of some 250 execs, each:")
            compare(["/bin/sh", str(script)], 1, options.rounds)
    finally:
        shutil.rmtree(directory)


def arguments(description: str | None, *, count: int, rounds: int) -> argparse.ArgumentParser:
    """What both benchmarks of an exec can be asked for; `count` and `rounds` where nothing is said."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("-n", "--count", type=int, default=count, help="spawns of /bin/true per variant and round")
    parser.add_argument("-r", "--rounds", type=int, default=rounds)
    parser.add_argument("--only", choices=("true", "script"))
    return parser


def main() -> None:
    parser = arguments(__doc__, count=60, rounds=15)
    parser.add_argument("--cpu", type=int, help="everything on this one CPU")
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    measure(options, compare)


if __name__ == "__main__":
    main()
