"""The egress fast path against squid: CPU per operation, operations per second, bulk bytes per second.

    python -m benchmarks.egress [--tools DIR] [--rounds N] [--count N]

Candidates take turns, round by round, on one core, with the load on another; what is printed are medians and their
ratios (ours / squid). CPU per operation is the steady figure, rates move with the machine. `--tools DIR` holds `load.c`
and `origin.c`, a load generator and an origin in C (compiled here, needs libssl-dev); without it a simple client in
Python makes the load, which is then itself the limit of the rates: read the CPU figures only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.enforce.egress.proxy import client_hello, policy, read_exactly, read_head, rule, running, upstream

HOST = "localhost"
SQUID = "/usr/sbin/squid"


@dataclass(frozen=True)
class Candidate:
    name: str
    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU used so far (proc(5), fields 14 and 15 of stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """Resident megabytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core % (os.cpu_count() or 1)})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def squid(where: Path) -> Iterator[Candidate]:
    port = free_port()
    where.chmod(0o755)
    config = where / "squid.conf"
    config.write_text(
        f"http_port 127.0.0.1:{port}\nacl good dstdomain {HOST}\nhttp_access allow good\nhttp_access deny all\n"
        "cache deny all\naccess_log none\ncache_log /dev/null\ncache_store_log none\npid_filename none\n"
        "shutdown_lifetime 0 seconds\nnetdb_filename none\nmax_filedescriptors 8192\n"
    )
    process = subprocess.Popen([SQUID, "-N", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        pin(process.pid, 0)
        yield Candidate("squid", port, process.pid)
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


class PythonLoad:
    """A client that is slow itself; four threads."""

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._hello = client_hello(HOST)

    def run(self, what: str, proxy: int, count: int) -> float:
        """The rate, per second."""
        once = self._tunnel if what == "hello" else self._denied
        start = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: once(proxy), range(count)))
        return count / (time.monotonic() - start)

    def _tunnel(self, proxy: int) -> None:
        with socket.create_connection(("127.0.0.1", proxy)) as sock:
            sock.sendall(f"CONNECT {HOST}:{self._origin} HTTP/1.1\r\n\r\n".encode())
            read_head(sock)
            sock.sendall(self._hello)
            read_exactly(sock, len(self._hello))

    def _denied(self, proxy: int) -> None:
        with socket.create_connection(("127.0.0.1", proxy)) as sock:
            sock.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
            read_head(sock)  # the answer; squid would keep the connection open behind it


class CLoad:
    """The load generator in C."""

    def __init__(self, program: Path, origin: int) -> None:
        self._program = program
        self._origin = origin

    def run(self, what: str, proxy: int, count: int) -> float:
        target = f"{HOST}:{self._origin}" if what != "deny" else "evil.test:443"
        command = [self._program, "-m", what, "-p", f"127.0.0.1:{proxy}", "-t", target, "-s", HOST]
        command += ["-b", str(count)] if what in ("down", "up") else ["-c", "32", "-n", str(count)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=300, preexec_fn=lambda: pin(os.getpid(), 1)
        )
        result = json.loads(done.stdout)
        if result.get("err") or result.get("timedout"):
            print(f"  {what}: {result}", file=sys.stderr)
        return float(result["rate"] if "rate" in result else result["mbps"])


@contextlib.contextmanager
def load(tools: Path | None, where: Path) -> Iterator[PythonLoad | CLoad]:
    if tools is None:
        with upstream() as origin:
            yield PythonLoad(origin.port)
        return
    for name in ("load", "origin"):
        libraries = ["-lssl", "-lcrypto", "-lm", "-lpthread"]
        subprocess.run(["gcc", "-O2", "-w", "-o", where / name, tools / f"{name}.c", *libraries], check=True)
    certificate, key = str(where / "cert.pem"), str(where / "key.pem")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-subj", f"/CN={HOST}", "-keyout", key, "-out", certificate]
    subprocess.run(make, check=True, capture_output=True)
    raw, tls = free_port(), free_port()
    process = subprocess.Popen([where / "origin", str(raw), str(tls), certificate, key])
    try:
        wait_for(raw)
        pin(process.pid, 1)
        yield CLoad(where / "load", raw)
    finally:
        process.terminate()
        process.wait()


def measure(candidates: list[Candidate], source: PythonLoad | CLoad, rounds: int, count: int) -> None:
    bulk = isinstance(source, CLoad)
    kinds = [("hello", count), ("deny", count)] + ([("down", 1 << 29), ("up", 1 << 29)] if bulk else [])
    for what, amount in kinds:
        rates: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
        costs: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
        for _ in range(rounds):
            for candidate in candidates:
                before = candidate.cpu()
                rates[candidate.name].append(source.run(what, candidate.port, amount))
                operations = amount / (1 << 20) if what in ("down", "up") else amount
                costs[candidate.name].append((candidate.cpu() - before) / operations * 1e6)
        unit = ("MB", "MB/s") if what in ("down", "up") else ("operation", "/s")
        for candidate in candidates:
            rate, cost = median(rates[candidate.name]), median(costs[candidate.name])
            print(f"{what:6} {candidate.name:9} {cost:8.0f} us CPU per {unit[0]:9} {rate:10.0f} {unit[1]}")
        if len(candidates) == 2:
            ours, other = (candidate.name for candidate in candidates)
            print(
                f"{what:6} ratio     {median(costs[ours]) / max(median(costs[other]), 1e-9):8.2f} of squid's CPU"
                f"        {median(rates[ours]) / median(rates[other]):10.2f} of its rate"
            )
    for candidate in candidates:
        print(f"rss    {candidate.name:9} {candidate.rss():8.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, help="directory with load.c and origin.c")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000, help="operations per round")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = stack.enter_context(load(given.tools, where))
        allowed = policy(rule(HOST, source._origin))
        proxy = stack.enter_context(running(allowed, {}, where, module=True))
        pin(proxy.process.pid, 0)
        candidates = [Candidate("parhelia", proxy.port, proxy.process.pid)]
        if shutil.which(SQUID):
            candidates.append(stack.enter_context(squid(where)))
        else:
            print("squid is not installed: no ratios", file=sys.stderr)
        measure(candidates, source, given.rounds, given.count)


if __name__ == "__main__":
    main()
