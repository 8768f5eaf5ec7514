"""How the cost of an egress decision grows with the policy: 2,000 hosts against 10.

Run: `python -m benchmarks.policy`. Prints median and 99th percentile in microseconds of `decide` for a host that
is allowed exactly, one below a wildcard and one that nothing allows, and the ratio of the two policies. Single thread,
interleaved, warm. A decision finds its rules by host, so the ratio should stay near 1.
"""

from __future__ import annotations

import statistics
import time
from datetime import date

from agent.policy.decide import decide
from agent.policy.load import LayerSource, load_policy
from agent.policy.model import Policy
from agent.policy.request import EgressRequest, Origin, Stage

SIZES = (10, 2_000)
ROUNDS = 2_000
ORIGIN = Origin("bench")


def policy(size: int) -> Policy:
    """Half exact hosts, half wildcards, and a deny for each tenth."""
    exact = [f"    - h{number}.example.com" for number in range(size // 2)]
    wild = [f'    - "*.w{number}.example.com"' for number in range(size // 2)]
    deny = [f"    - x.w{number}.example.com" for number in range(0, size // 2, 10)]
    text = "\n".join(["egress:", "  allow:", *exact, *wild, "  deny:", *deny])
    return load_policy([LayerSource("bench", (("bench.yaml", text),))])


def asked(host: str) -> EgressRequest:
    return EgressRequest(host, 443, date(2026, 1, 1), ORIGIN, stage=Stage.CONNECT, addresses=("93.184.215.14",))


def main() -> None:
    """Measure and print."""
    policies = {size: policy(size) for size in SIZES}
    questions = {
        "exact": lambda size: asked(f"h{size // 2 - 1}.example.com"),
        "wildcard": lambda size: asked(f"a.b.w{size // 2 - 1}.example.com"),
        "denied": lambda size: asked("nothing.of.example.org"),
    }
    taken: dict[tuple[str, int], list[float]] = {(name, size): [] for name in questions for size in SIZES}
    for _ in range(ROUNDS):
        for (name, size), samples in taken.items():
            request = questions[name](size)
            started = time.perf_counter_ns()
            decide(policies[size], request)
            samples.append((time.perf_counter_ns() - started) / 1000)
    for (name, size), samples in taken.items():
        samples.sort()
        median, slow = statistics.median(samples), samples[int(len(samples) * 0.99)]
        print(f"{name:9} {size:5} hosts: median {median:7.1f} µs   p99 {slow:7.1f} µs")
    for name in questions:
        ratio = statistics.median(taken[name, SIZES[1]]) / statistics.median(taken[name, SIZES[0]])
        print(f"{name}: {SIZES[1]} hosts cost {ratio:.2f} times what {SIZES[0]} cost")


if __name__ == "__main__":
    main()
