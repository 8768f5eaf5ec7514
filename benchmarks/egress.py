"""The egress side against squid and stock mitmdump: CPU per operation, rates, latency, memory, time to start.

    python -m benchmarks.egress [--tools DIR] [--rounds N] [--scale F] [--only NAME …]

Candidates take turns, round by round, on one core, with the load on another; what is printed are medians and their
ratios to the other's. CPU per operation is the steady figure, rates move with the machine. `--tools DIR` holds `load.c`
and `origin.c`, a load generator and an origin in C (compiled here, needs libssl-dev); without it a simple client in
Python makes the load, which is then itself the limit of the rates: tunnels and refusals only, and read the CPU figures.

The guard is a stand-in that answers everything at once, on the load's core; `--guard` takes the real one (audit log,
attribution) instead, and prints its CPU as well.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from statistics import median

from agent.policy.request import Protocol
from benchmarks._egress_candidates import Candidate, mitmdump, parhelia, squid
from benchmarks._egress_load import HOST, KEEP_ALIVE, CLoad, PythonLoad, Work, load
from tests.enforce.egress.proxy import policy, rule

PASSING = (
    Work("tunnels, 32 at once", "hello", 3000),
    Work("tunnels, 256 at once", "hello", 3000, at_once=256),
    Work("refusals", "deny", 4000),
    Work("http keep-alive", "http", 100, requests=KEEP_ALIVE),
    Work("bulk down", "down", 1 << 30),
    Work("bulk up", "up", 1 << 30),
)
INSPECTED = (
    Work("intercepted, new", "tls", 150, at_once=8),
    Work("intercepted, kept", "tls", 8, at_once=8, requests=KEEP_ALIVE),
)
ALONE = Work("one tunnel at a time", "hello", 400, at_once=1)
IDLE = 1000


def compare(candidates: list[Candidate], source: PythonLoad | CLoad, work: Work, rounds: int) -> None:
    """One kind of work, turn by turn."""
    rates: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    costs: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    guards: list[float] = []
    for _ in range(rounds):
        for candidate in candidates:
            before, guarded = candidate.cpu(), candidate.guard_cpu()
            result = source.run(work, candidate.port)
            rates[candidate.name].append(float(result["rate"] if "rate" in result else result["mbps"]))
            costs[candidate.name].append((candidate.cpu() - before) / work.operations * 1e6)
            if candidate.guard is not None:
                guards.append((candidate.guard_cpu() - guarded) / work.operations * 1e6)
    for candidate in candidates:
        rate, cost = median(rates[candidate.name]), median(costs[candidate.name])
        print(f"{work.name:22} {candidate.name:9} {cost:9.1f} us CPU {rate:10.1f} {'MB' if work.bulk else ''}/s")
    if guards:
        print(f"{work.name:22} {'guard':9} {median(guards):9.1f} us CPU")
    if len(candidates) == 2:
        ours, other = (candidate.name for candidate in candidates)
        cost = median(costs[ours]) / max(median(costs[other]), 1e-9)
        print(
            f"{work.name:22} {'ratio':9} {cost:9.2f}x CPU    {median(rates[ours]) / median(rates[other]):10.2f}x rate"
        )


def latency(candidates: list[Candidate], source: CLoad, rounds: int) -> None:
    """What a proxy adds to one tunnel at a time: its median above that of no proxy at all."""
    medians: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, port in [("direct", None), *((candidate.name, candidate.port) for candidate in candidates)]:
            medians.setdefault(name, []).append(float(source.run(ALONE, port)["p50"]))
    direct = median(medians["direct"])
    added = [median(medians[candidate.name]) - direct for candidate in candidates]
    for candidate, extra in zip(candidates, added, strict=True):
        print(f"{ALONE.name:22} {candidate.name:9} {extra:9.0f} us more than the {direct:.0f} us of no proxy")
    if len(added) == 2:
        print(f"{ALONE.name:22} {'ratio':9} {added[0] / added[1]:9.2f}x")


def memory(candidates: list[Candidate], source: CLoad) -> None:
    """Resident megabytes, and what tunnels at rest add."""
    for candidate in candidates:
        before = candidate.rss()
        with source.idle(candidate.port, IDLE) as said:
            more = candidate.rss() - before
            print(f"{'memory':22} {candidate.name:9} {before:9.1f} MB, {more:+.1f} MB by {IDLE} idle tunnels ({said})")


def fresh(candidates: list[Candidate]) -> None:
    for candidate in candidates:
        said = f"{candidate.name:9} {candidate.started * 1000:9.0f} ms to the first answer, {candidate.rss():.1f} MB"
        print(f"{'start':22} {said}")


def scaled(works: tuple[Work, ...], scale: float, only: list[str], source: PythonLoad | CLoad) -> list[Work]:
    wanted = [work for work in works if work.mode in source.modes and (not only or work.mode in only)]
    return [
        Work(work.name, work.mode, max(work.at_once, int(work.amount * scale)), work.at_once, work.requests)
        for work in wanted
    ]


def passing(given: argparse.Namespace, source: PythonLoad | CLoad, where: Path) -> None:
    """Whatever needs no look inside: against squid."""
    rules = [rule(HOST, source.raw, source.tls, id="raw"), rule(HOST, source.http, protocol=Protocol.HTTP, id="http")]
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(parhelia(policy(*rules), where, guard=given.guard))
        other = stack.enter_context(squid(where))
        candidates = [ours] + ([other] if other is not None else [])
        if not given.only:
            fresh(candidates)
        for work in scaled(PASSING, given.scale, given.only, source):
            compare(candidates, source, work, given.rounds)
        if isinstance(source, CLoad) and (not given.only or "latency" in given.only):
            latency(candidates, source, given.rounds)
        if isinstance(source, CLoad) and (not given.only or "idle" in given.only):
            memory(candidates, source)


def inspected(given: argparse.Namespace, source: CLoad, where: Path) -> None:
    """What is looked into: against mitmdump as it comes."""
    works = scaled(INSPECTED, given.scale, given.only, source)
    if not works:
        return
    look = rule(HOST, source.tls, methods=("GET",), paths=("/**",))
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(parhelia(policy(look), where, guard=given.guard, ca=source.ca))
        other = stack.enter_context(mitmdump(where))
        for work in works:
            compare([ours, other], source, work, given.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, help="directory with load.c and origin.c")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the operations per round")
    parser.add_argument("--only", nargs="*", default=[], help="hello, deny, http, down, up, tls, latency, idle")
    parser.add_argument("--guard", action="store_true", help="the real guard instead of a stand-in")
    given = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as name, load(given.tools, Path(name)) as source:
        if given.only != ["tls"]:
            passing(given, source, Path(name))
        if isinstance(source, CLoad):
            inspected(given, source, Path(name))


if __name__ == "__main__":
    main()
