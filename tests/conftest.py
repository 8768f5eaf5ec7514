"""What all tests share: how a missing mechanism is answered, and that no module of tests loses descriptors."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.runtimes.fixtures"]

SHARED_DESCRIPTORS = 20
"""What a module may leave open: servers that others use too, and what a thread of it closes a moment later."""


def require(condition: object, reason: str) -> None:
    """Skip with the reason where `condition` is false; fail instead where PARHELIA_TEST_REQUIRE=all (CI)."""
    if condition:
        return
    if os.environ.get("PARHELIA_TEST_REQUIRE") == "all":
        pytest.fail(f"required here, and missing: {reason}")
    pytest.skip(reason)


def open_way(directory: Path) -> None:
    """Let every account reach a directory below the temporary one, which pytest makes for its own account only."""
    for each in (directory, *directory.parents):
        if each.stat().st_uid == os.geteuid() and str(each).startswith(f"{tempfile.gettempdir()}/"):
            each.chmod(each.stat().st_mode | 0o755)


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port of loopback where nobody listens, and which the kernel gives to nobody else meanwhile; who asks for it by
    its number with SO_REUSEADDR, as servers do, gets it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")  # no test asserts a time


def pytest_configure() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and whatever is started here would inherit it:
    tests that interrupt a program would wait for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _no_descriptors_are_lost() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    for _ in range(20):
        if (left := len(os.listdir("/proc/self/fd")) - before) <= SHARED_DESCRIPTORS:
            return
        gc.collect()
        time.sleep(0.1)
    pytest.fail(f"{left} more descriptors are open than before this module's tests")
