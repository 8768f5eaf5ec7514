"""How much reading a command line by meaning costs over a bare parse of it.

Run: `python benchmarks/analysis.py`. Prints median and 99th percentile in microseconds for tree-sitter alone, for
`agent.shell.requests.from_text`, for `from_argv`, and the ratio of the first two. Single thread, interleaved, warm.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import date

import tree_sitter
import tree_sitter_bash

from agent.policy.request import Origin
from agent.shell.requests import from_argv, from_text

LINES = (
    "ls -la",
    "git status && git diff --stat",
    "cd build && cmake .. -DCMAKE_BUILD_TYPE=Release && make -j8 2>&1 | tail -20",
    'for f in *.py; do echo "$f"; wc -l "$f"; done',
    "sudo env FOO=1 bash -c 'rm -rf ./build && mkdir -p build'",
    "cat <<'EOF' > notes.md\n" + "a line of text that is only data\n" * 40 + "EOF",
    "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"a\"])' < in.json",
)
ROUNDS = 300
TODAY = date(2026, 1, 1)
ORIGIN = Origin("bench")


def main() -> None:
    """Measure and print."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))
    ways: dict[str, Callable[[str], object]] = {
        "parse": lambda text: parser.parse(text.encode()),
        "from_text": lambda text: from_text(text, cwd="/w", home="/h", today=TODAY, origin=ORIGIN),
        "from_argv": lambda text: from_argv(text.split(), exe=None, cwd="/w", home="/h", today=TODAY, origin=ORIGIN),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for line in LINES:
            for name, way in ways.items():
                started = time.perf_counter_ns()
                way(line)
                taken[name].append((time.perf_counter_ns() - started) / 1000)
    for name, samples in taken.items():
        samples.sort()
        p99 = samples[int(len(samples) * 0.99)]
        print(f"{name:10} median {statistics.median(samples):8.1f} µs   p99 {p99:8.1f} µs")
    ratio = statistics.median(taken["from_text"]) / statistics.median(taken["parse"])
    print(f"from_text costs {ratio:.1f} times a bare parse")


if __name__ == "__main__":
    main()
