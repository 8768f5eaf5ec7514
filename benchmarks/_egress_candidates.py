"""What the egress benchmark compares: our egress process, squid, and mitmdump as it comes, each pinned to one core."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.policy.model import Policy
from benchmarks._egress_guard import guarded
from benchmarks._egress_load import HOST, free_port, pin, wait_for
from tests.enforce.egress.proxy import running

SQUID = "/usr/sbin/squid"


@dataclass(frozen=True)
class Candidate:
    """`pids`: the processes whose CPU and memory count. `started`: seconds to the first answer. `guard`: of the real
    guard, where that is in use."""

    name: str
    port: int
    pids: tuple[int, ...]
    started: float = 0
    guard: int | None = None

    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        return sum(map(_cpu, self.pids))

    def guard_cpu(self) -> float:
        return 0 if self.guard is None else _cpu(self.guard)

    def rss(self) -> float:
        """Resident megabytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu(pid: int) -> float:
    """proc(5), fields 14 and 15 of stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def parhelia(allowed: Policy, where: Path, *, guard: bool = False, ca: Path | None = None) -> Iterator[Candidate]:
    """`ca`: whom the interception engine trusts; its worker counts."""
    began = time.monotonic()
    if guard:
        with guarded(allowed, where, ca) as (port, egress, process):
            yield _settled(port, egress, began, process)
        return
    with running(allowed, {}, where, module=True, ca_file=None if ca is None else str(ca)) as proxy:
        yield _settled(proxy.port, proxy.process.pid, began, None)


def _settled(port: int, egress: int, began: float, guard: int | None) -> Candidate:
    wait_for(port)
    started = time.monotonic() - began
    pids = (egress, *_children(egress))
    for pid in pids:
        pin(pid, 0)
    if guard is not None:
        pin(guard, 1)
    return Candidate("parhelia", port, pids, started, guard)


@contextlib.contextmanager
def squid(where: Path) -> Iterator[Candidate | None]:
    if not shutil.which(SQUID):
        print("squid is not installed: no ratios", file=sys.stderr)
        yield None
        return
    port = free_port()
    where.chmod(0o755)
    config = where / "squid.conf"
    config.write_text(
        f"http_port 127.0.0.1:{port}\nacl good dstdomain {HOST}\nhttp_access allow good\nhttp_access deny all\n"
        "cache deny all\naccess_log none\ncache_log /dev/null\ncache_store_log none\npid_filename none\n"
        "shutdown_lifetime 0 seconds\nnetdb_filename none\nmax_filedescriptors 8192\n"
    )
    with _process("squid", [SQUID, "-N", "-f", str(config)], port) as candidate:
        yield candidate


@contextlib.contextmanager
def mitmdump(where: Path) -> Iterator[Candidate]:
    port = free_port()
    command = [str(Path(sys.executable).with_name("mitmdump")), "--quiet", "--ssl-insecure"]
    options = ["--listen-host", "127.0.0.1", "--listen-port", str(port), "--set", f"confdir={where / 'mitmdump'}"]
    with _process("mitmdump", [*command, *options], port) as candidate:
        yield candidate


@contextlib.contextmanager
def _process(name: str, command: list[str], port: int) -> Iterator[Candidate]:
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        started = time.monotonic() - began
        pin(process.pid, 0)
        yield Candidate(name, port, (process.pid,), started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
