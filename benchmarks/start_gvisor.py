"""What `benchmarks.start` measures, in gVisor: inside of a container of the project's image, once by each runsc.

`python -m benchmarks.start_gvisor [-n ROUNDS]`, as root; needs dockerd, debootstrap and runsc (`make test-tools` brings
them), and says so where they are missing. Times are those of the sandbox's own clock. Both runsc of the tests are
measured: the machine's (Debian 12: of 2022) and trixie's (of 2024).
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from tests.runtimes.cache import scratch
from tests.runtimes.engine import client, running_engine
from tests.runtimes.gvisor import GVisor, made_for, unpack

CHECKOUT = Path(__file__).parents[1]
PYTHON = "/opt/parhelia/bin/python"
SHARED = "/srv/measured"


def missing() -> list[str]:
    """What is needed and not there."""
    needed = {
        "root": os.geteuid() == 0,
        "dockerd": bool(shutil.which("dockerd") and client()),
        "debootstrap": bool(shutil.which("debootstrap")),
        "runsc": Path("/usr/bin/runsc").exists(),
    }
    return [name for name, there in needed.items() if not there]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5, help="rounds (5)")
    rounds = parser.parse_args().n
    if lacking := missing():
        print(f"not measured here, for want of: {', '.join(lacking)}")
        return
    with running_engine() as engine, scratch("bench-gvisor") as directory:
        rootfs = unpack(engine, engine.build(CHECKOUT), directory)
        shared = directory / "measured"
        shutil.copytree(CHECKOUT / "benchmarks", shared / "benchmarks")
        for version in ("system", "trixie"):
            gvisor = GVisor(made_for(engine, version), rootfs, directory)
            measure = [PYTHON, "-m", "benchmarks.start", "-n", str(rounds), "--no-memory"]
            environment = {"PYTHONPATH": SHARED}
            done = gvisor(*measure, entrypoint=False, environment=environment, mounts=((shared, SHARED),), timeout=600)
            print(f"runsc of the {version}:", done.stdout, done.stderr[-2000:] if done.returncode else "", sep="\n")


if __name__ == "__main__":
    main()
