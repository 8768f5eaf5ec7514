"""What is kept of a session at the moment of a lockdown, beside its log: for whoever looks into it afterwards.

Rules kept here: a directory of its own in the audit directory, the agent's alone (0700, files 0600), synced; secrets by
their place and by the session's own values are taken out as in the log; what could not be had is said in the file that
should hold it. Nothing of it is asked of the session, and nothing is read that it could make endless.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from agent.record.event import Json
from agent.record.verify import verify
from agent.shell.redact import redact_argv

MAX_PROCESSES = 4096
_MAX_ARGV = 256
_MAX_WORD = 4096

type Redact = Callable[[dict[str, Json]], dict[str, Json]]


def keep(
    directory: Path,
    *,
    processes: Iterable[int],
    status: dict[str, Json],
    policy_dirs: Iterable[str],
    audit_dir: str,
    redact: Redact,
) -> list[str]:
    """Write it all; the names of the files. Raises OSError where the directory cannot be made."""
    directory.mkdir(mode=0o700)
    found = sorted(processes)
    parts: dict[str, Callable[[], Json]] = {
        "processes.json": lambda: [redact(_process(pid)) for pid in found[:MAX_PROCESSES]],
        "connections.json": lambda: [connection for pid in found[:MAX_PROCESSES] for connection in _connections(pid)],
        "status.json": lambda: status,
        "policy.json": lambda: _policy(policy_dirs),
        "audit.json": lambda: _head(audit_dir),
    }
    for name, make in parts.items():
        _write(directory / name, _tried(make))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return [*parts]


def _tried(make: Callable[[], Json]) -> Json:
    try:
        return make()
    except Exception as error:  # the rest is kept all the same
        return {"error": f"{type(error).__name__}: {error}"}


def _write(path: Path, content: Json) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _process(pid: int) -> dict[str, Json]:
    import psutil

    found: dict[str, Json] = {"pid": pid}
    try:
        process = psutil.Process(pid)
    except psutil.Error as error:
        return {**found, "error": type(error).__name__}
    asked: dict[str, Callable[[], Json]] = {
        "ppid": process.ppid,
        "uid": lambda: process.uids().effective,
        "started": lambda: datetime.fromtimestamp(process.create_time(), tz=UTC).isoformat(),
        "state": lambda: str(process.status()),
        "argv": lambda: [*redact_argv([word[:_MAX_WORD] for word in process.cmdline()[:_MAX_ARGV]])],
        "exe": lambda: str(process.exe()),
        "cwd": lambda: str(process.cwd()),
        "descriptors": process.num_fds,
        "threads": process.num_threads,
    }
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except (psutil.Error, OSError) as error:
            found[name] = f"({type(error).__name__})"
    return found


def _connections(pid: int) -> list[Json]:
    import psutil

    try:
        found = psutil.Process(pid).net_connections(kind="inet")
    except (psutil.Error, OSError):
        return []
    return [
        {
            "pid": pid,
            "type": "udp" if int(one.type) == 2 else "tcp",  # socket(2): SOCK_DGRAM
            "local": f"{one.laddr.ip}:{one.laddr.port}" if one.laddr else "",
            "remote": f"{one.raddr.ip}:{one.raddr.port}" if one.raddr else "",
            "state": str(one.status),
        }
        for one in found
    ]


def _policy(directories: Iterable[str]) -> Json:
    """The text of the files as they are now; the digest of the policy in force is in the status."""
    return {
        str(file): file.read_text(encoding="utf-8", errors="backslashreplace")
        for directory in directories
        for file in sorted(Path(directory).glob("*.yaml"))
    }


def _head(audit_dir: str) -> Json:
    """The log's head, by its verifier: what a copy kept elsewhere can be compared with."""
    report = verify(audit_dir)
    return {
        "stream": report.stream,
        "events": report.events,
        "last_seq": report.last_seq,
        "head": report.head,
        "ok": report.broken is None,
    }
