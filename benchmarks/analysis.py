"""How much reading a command line by meaning costs over a bare parse of it.

Run: `python -m benchmarks.analysis`. Prints median and 99th percentile in microseconds for tree-sitter alone, for
`agent.shell.requests.from_text`, for `from_argv`, and the ratio of the first two; then `from_text` over the shared
corpus of commands, where it is there (at most 300 µs in the median and 3 ms for 99 of 100 is what is wanted). Single
thread, interleaved, warm, in time of the processor: what other programs take from it does not count.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

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
CORPUS = Path(__file__).parents[2] / "shared" / "corpora" / "commands.jsonl"
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
                taken[name].append(timed(way, line))
    for name, samples in taken.items():
        report(name, samples)
    ratio = statistics.median(taken["from_text"]) / statistics.median(taken["parse"])
    print(f"from_text costs {ratio:.1f} times a bare parse")
    over_corpus(ways["from_text"])


def report(name: str, samples: list[float]) -> None:
    samples.sort()
    p99 = samples[int(len(samples) * 0.99)]
    print(f"{name:10} median {statistics.median(samples):8.1f} µs   p99 {p99:8.1f} µs")


def over_corpus(way: Callable[[str], object]) -> None:
    """The same over every command of the corpus, the best of three each (the first one warms the caches)."""
    if not CORPUS.is_file():
        print("the shared corpus is not beside this checkout")
        return
    samples = [
        min(timed(way, command) for _ in range(3))
        for command in (str(json.loads(row)["command"]) for row in CORPUS.read_text().splitlines())
    ]
    report("corpus", samples)


def timed(way: Callable[[str], object], text: str) -> float:
    """Microseconds of processor time."""
    started = time.thread_time_ns()
    way(text)
    return (time.thread_time_ns() - started) / 1000


if __name__ == "__main__":
    main()
