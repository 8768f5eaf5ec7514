"""What `paths.audit: writes` costs: the same work by sessions with and without it, interleaved, as a ratio.

Run as root: ``.venv/bin/python -m benchmarks.path_audit [-n 20000] [-r 5]``. Loads: n files made by tar, the same
removed by rm -rf, a Python environment made, and single opens in a loop: to read (never notified), to write (allowed)
and to write where it is denied. Both sessions have the filter and Landlock; one has the audit besides. A ratio is the
median of the rounds' own ratios. What auditing reads would cost follows from the price of one notified open.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.enforce.commands.filtered import GID, UID
from tests.enforce.paths.audited import AUDITED, PLAIN, World

OPENS = 3000


def tree(count: int, archive: Path) -> None:
    """A tar file with `count` small files in directories of a hundred."""
    with tempfile.TemporaryDirectory() as made:
        for index in range(count):
            directory = Path(made, str(index // 100))
            directory.mkdir(exist_ok=True)
            (directory / f"{index}.txt").write_text("x" * 200)
        subprocess.run(["tar", "-C", made, "-cf", archive, "."], check=True)
    archive.chmod(0o644)


def seconds(world: World, argv: list[str], *, audited: bool) -> float:
    """Of a program run by a session, from its exec to its end."""
    started = time.perf_counter()
    finished = world.start(argv, None, AUDITED if audited else PLAIN)
    taken = time.perf_counter() - started
    if finished.status != 0:
        raise SystemExit(f"{argv}: {finished.err}")
    return taken


def opens(world: World, path: Path, flags: int, *, audited: bool) -> float:
    """Seconds of one open and its close, made or refused, in a loop of a session."""

    def act() -> None:
        started = time.perf_counter()
        for _ in range(OPENS):
            try:
                os.close(os.open(path, flags))
            except PermissionError:
                continue
        os.write(2, str((time.perf_counter() - started) / OPENS).encode())

    finished = world.start(["/bin/true"], lambda: (world.restrict(), act(), os._exit(0)), AUDITED if audited else PLAIN)
    world.recorded.events.clear()
    return float(finished.err)


def compare(name: str, rounds: int, once: Callable[[bool], float]) -> None:
    """Print the medians of both and of their ratios."""
    plain, audited = [], []
    for index in range(rounds):
        for which in ((False, True), (True, False))[index % 2]:
            (audited if which else plain).append(once(which))
    ratio = statistics.median(a / p for a, p in zip(audited, plain, strict=True))
    shown = [statistics.median(times) for times in (plain, audited)]
    unit, factor = ("s", 1.0) if shown[0] > 0.01 else ("us", 1e6)
    print(f"{name:40} {shown[0] * factor:9.3f} {unit:2} -> {shown[1] * factor:9.3f} {unit:2}  x{ratio:.2f}")


def main() -> None:
    """Make the loads, run them, print a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=20000, help="files")
    parser.add_argument("-r", type=int, default=5, help="rounds")
    given = parser.parse_args()
    world = World()
    try:
        archive = world.base / "files.tar"
        tree(given.n, archive)

        def extract(audited: bool) -> float:
            world.reset()
            return seconds(world, ["/bin/tar", "-xf", str(archive)], audited=audited)

        def remove(audited: bool) -> float:
            world.reset()
            subprocess.run(["tar", "-C", world.work / "empty", "-xf", archive], check=True)
            subprocess.run(["chown", "-R", f"{UID}:{GID}", world.work], check=True)
            return seconds(world, ["/bin/rm", "-rf", str(world.work / "empty")], audited=audited)

        def environment(audited: bool) -> float:
            world.reset()
            return seconds(world, ["/usr/bin/python3", "-m", "venv", "--without-pip", "made"], audited=audited)

        compare(f"tar makes {given.n} files", given.r, extract)
        compare(f"rm -rf of {given.n} files", given.r, remove)
        compare("python3 -m venv --without-pip", given.r, environment)
        world.reset()
        for name, path, flags in (
            ("open to read", world.work / "file", os.O_RDONLY),
            ("open to write, allowed", world.work / "file", os.O_WRONLY),
            ("open to write, denied", world.out / "file", os.O_WRONLY),
        ):
            compare(name, given.r, lambda audited, path=path, flags=flags: opens(world, path, flags, audited=audited))
    finally:
        world.close()


if __name__ == "__main__":
    main()
