"""A control group of one's own that bounds processes and memory, by the first hierarchy that offers each.

The group is made below the caller's own, so that what bounds the caller bounds it too. Files and rules are from
Documentation/admin-guide/cgroup-v1 (pids.rst, memory.rst) and cgroup-v2.rst of the kernel; where hierarchies are and
which group is one's own, from proc_pid_mountinfo(5) and cgroups(7). Everything raises OSError with the kernel's errno.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

from agent.values import dataclass

PIDS, MEMORY = "pids", "memory"


@dataclass(frozen=True, slots=True)
class Limit:
    """A controller's group in one hierarchy: its directory, and what bounds it there (file, value), the first of which
    must be had."""

    directory: str
    bounds: tuple[tuple[str, str], ...]

    def make(self) -> None:
        """Make the group and bound it."""
        with suppress(FileExistsError):  # another controller's, of the same hierarchy
            os.mkdir(self.directory, 0o755)  # noqa: PTH102
        for index, (name, value) in enumerate(self.bounds):
            try:
                _write(f"{self.directory}/{name}", value)
            except OSError:
                if index == 0:
                    raise

    def add(self, pid: int) -> None:
        """Put a process in; what it starts is in it too."""
        _write(f"{self.directory}/cgroup.procs", str(pid))


def find(controller: str, name: str, most: int) -> Limit:
    """How `controller` (PIDS, MEMORY) would bound a group `name` to `most`. Raises OSError (ENOENT: no hierarchy has
    it; EBUSY: the unified one does not give it to groups below this process's own)."""
    for kind, directory in _hierarchies(controller):
        if kind == "cgroup":
            return Limit(f"{directory}/{name}", _version_1(controller, most))
        if controller in _words(f"{directory}/cgroup.controllers"):
            if controller not in _words(f"{directory}/cgroup.subtree_control"):
                _write(f"{directory}/cgroup.subtree_control", f"+{controller}")
            return Limit(f"{directory}/{name}", _version_2(controller, most))
    raise FileNotFoundError(errno.ENOENT, f"no control group hierarchy for {controller}")


def existing(name: str) -> list[Limit]:
    """The groups of that name, bounded as they are."""
    places = [f"{directory}/{name}" for controller in (PIDS, MEMORY) for _, directory in _hierarchies(controller)]
    return [Limit(place, ()) for place in dict.fromkeys(places) if os.path.isdir(place)]  # noqa: PTH112


def remove(name: str) -> None:
    """Remove the groups of that name; what is missing, or still has processes in it, is left."""
    for controller in (PIDS, MEMORY):
        with suppress(OSError):
            for _, directory in _hierarchies(controller):
                with suppress(OSError):
                    os.rmdir(f"{directory}/{name}")  # noqa: PTH106


def _version_1(controller: str, most: int) -> tuple[tuple[str, str], ...]:
    if controller == PIDS:
        return (("pids.max", str(most)),)
    return (("memory.limit_in_bytes", str(most)), ("memory.memsw.limit_in_bytes", str(most)))  # with swap: optional


def _version_2(controller: str, most: int) -> tuple[tuple[str, str], ...]:
    if controller == PIDS:
        return (("pids.max", str(most)),)
    return (("memory.max", str(most)), ("memory.swap.max", "0"))


def _hierarchies(controller: str) -> Iterator[tuple[str, str]]:
    """(``cgroup`` or ``cgroup2``, this process's own group) where the controller may be."""
    own: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line.split(" ") for line in file]
    for fields in mounts:
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        wanted = controller if kind == "cgroup" else ""
        if kind not in ("cgroup", "cgroup2") or wanted not in own:
            continue
        if kind == "cgroup" and controller not in options.strip().split(","):
            continue
        root, point, path = fields[3], fields[4], own[wanted]
        inner = path if root == "/" else path.removeprefix(root)
        yield kind, f"{point}/{inner.strip('/')}".rstrip("/")


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
