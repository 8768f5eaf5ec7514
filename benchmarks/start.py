"""What a platform waits for, and pays in memory, for one confined session on the embedded defaults.

`python -m benchmarks.start [-n ROUNDS] [--no-memory]`, as root: interleaved rounds, medians and lowest, in ms of the
clock; then the resident memory of the agent's processes while a session sleeps. Where a mount namespace is to be had
/tmp is empty, as in a new container: the search for protected places takes its time by what lies there.

  bare python       python3 -c pass: what starting this interpreter costs here (the unit of the ratio)
  first instruction from exec of `parhelia-agent run` to the first instruction of the session's command
  whole             to the end of `run`, its command ending at once
  processor         user and system time of all its processes, to the end (other work distorts it least)

A process's memory is its proportional share (Pss of smaps_rollup, proc(5)): a page that n processes map counts
as 1/n in each, so that the sum is what the agent as a whole takes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.linux import namespaces

AGENT = Path(sys.executable).parent / "parhelia-agent"
MARK = "%s%N"
SLEEP_SECONDS = "600"


def run(audit: Path, *command: str) -> list[str]:
    """The argument list of one confined session."""
    return [str(AGENT), "run", "--audit-dir", str(audit), "--workdir", "/tmp", "--", *command]


def bare() -> float:
    """Seconds that starting and ending the interpreter takes."""
    started = time.time()
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    return time.time() - started


def session() -> tuple[float, float, float]:
    """Seconds to the first instruction (date(1) reads the clock as soon as it runs), to the end of `run`, and of
    processors."""
    audit = Path(tempfile.mkdtemp(prefix="bench-start-"))
    try:
        used, started = processor(), time.time()
        done = subprocess.run(run(audit, "date", f"+{MARK}"), capture_output=True, text=True, check=True)
        return int(done.stdout) / 1e9 - started, time.time() - started, processor() - used
    finally:
        shutil.rmtree(audit)


def processor() -> float:
    """Seconds that the children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def empty_tmp() -> str:
    """Have an empty /tmp, for this process and its children; what /tmp is then."""
    try:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.make_mounts_private()
        namespaces.tmpfs("/tmp", mode=0o1777, size="64m")
    except OSError:
        return "as it was"
    return "empty"


def memory() -> dict[str, float]:
    """Process -> MiB, of the agent's own while its session sleeps."""
    audit = Path(tempfile.mkdtemp(prefix="bench-start-"))
    running = subprocess.Popen(
        run(audit, "/bin/sh", "-c", f"echo up; exec sleep {SLEEP_SECONDS}"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None and running.stdout.readline() == "up\n"
        time.sleep(2)  # what is loaded after the start is loaded
        return {name: _pss(pid) for pid, name in _tree(running.pid) if name != "sleep"}
    finally:
        running.terminate()
        running.wait()
        shutil.rmtree(audit)


def _tree(root: int) -> list[tuple[int, str]]:
    """The process and all below it, each with the name it goes by."""
    found = [(root, _name(root))]
    for thread in os.listdir(f"/proc/{root}/task"):
        for child in Path(f"/proc/{root}/task/{thread}/children").read_text().split():
            found += _tree(int(child))
    return found


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss of {pid}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=10, help="rounds (10)")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    given = parser.parse_args()
    rounds = given.n
    print(f"/tmp is {empty_tmp()}")
    session()  # the caches are warm, as for the second session of a machine
    measured = [(bare(), *session()) for _ in range(rounds)]
    unit = statistics.median(each[0] for each in measured)
    for index, name in enumerate(("bare python", "first instruction", "whole", "processor")):
        times = [each[index] for each in measured]
        median = statistics.median(times)
        print(f"{name:18} {median * 1e3:7.0f} ms median {min(times) * 1e3:7.0f} lowest   x{median / unit:.1f}")
    if given.no_memory:
        return
    shares = memory()
    for name, share in shares.items():
        print(f"{name:32} {share:6.1f} MiB")
    print(f"{'sum':32} {sum(shares.values()):6.1f} MiB")


if __name__ == "__main__":
    main()
