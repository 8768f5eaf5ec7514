"""Control groups bound what is in them, in the hierarchy that this machine has for each controller."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import cgroups
from tests.conftest import require
from tests.linux.forked import outcome

MOST = 5
ENOUGH = 12


@pytest.fixture
def name() -> Iterator[str]:
    made = f"parhelia-test-{os.getpid()}"
    yield made
    cgroups.remove(made)


def limit(controller: str, name: str, most: int) -> cgroups.Limit:
    try:
        found = cgroups.find(controller, name, most)
        found.make()
    except OSError as error:
        require(False, f"no control group for {controller}: {error}")
        raise
    return found


def test_no_more_processes_than_the_group_may_have(name: str) -> None:
    group = limit(cgroups.PIDS, name, MOST)

    def piece() -> None:
        group.add(os.getpid())
        read, write = os.pipe()
        started = 0
        try:
            while started < ENOUGH:  # counted: it ends where the limit does not hold
                if os.fork() == 0:
                    os.close(write)
                    os.read(read, 1)
                    os._exit(0)
                started += 1
        except OSError as error:
            assert error.errno == errno.EAGAIN
        os.close(write)
        assert started == MOST - 1, started
        for _ in range(started):
            os.wait()

    assert outcome(piece) == 0


def test_no_more_memory_than_the_group_may_have(name: str) -> None:
    group = limit(cgroups.MEMORY, name, 64 << 20)

    def piece() -> None:
        group.add(os.getpid())
        kept = bytearray(200 << 20)
        kept[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(kept[:: os.sysconf("SC_PAGE_SIZE")])

    assert outcome(piece) == -9


def test_a_group_is_found_again_by_its_name_with_its_bounds(name: str) -> None:
    group = limit(cgroups.PIDS, name, MOST)
    assert [found.directory for found in cgroups.existing(name)] == [group.directory]

    def piece() -> None:
        for found in cgroups.existing(name):
            found.add(os.getpid())
        assert str(os.getpid()) in Path(group.directory, "cgroup.procs").read_text().split()

    assert outcome(piece) == 0
    assert Path(group.directory, "pids.max").read_text() == f"{MOST}\n"


def test_a_removed_group_is_gone_and_a_missing_one_no_error(name: str) -> None:
    group = limit(cgroups.PIDS, name, MOST)
    cgroups.remove(name)
    assert not Path(group.directory).exists()
    cgroups.remove(name)


def test_a_controller_that_no_hierarchy_has_is_an_error(name: str) -> None:
    with pytest.raises(OSError):
        cgroups.find("no-such-controller", name, MOST)
