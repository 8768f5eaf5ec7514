"""The runtimes that every attack of this folder is run on."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.escape.runtime import Host, Runtime, serving
from tests.escape.upstream import Upstream


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The stand-in servers."""
    yield from serving(tmp_path_factory.mktemp("upstream"))


def _has(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture
def host(tmp_path: Path, upstream: Upstream) -> Host:
    """Sessions on this machine."""
    require(os.geteuid() == 0, "a session with separate users needs root")
    require(_has("session") and _has("parhelia"), "the accounts are missing (make setup makes them)")
    return Host(tmp_path, upstream)


@pytest.fixture(params=["host"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime in turn."""
    found: Runtime = request.getfixturevalue(request.param)
    return found
