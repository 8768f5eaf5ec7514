"""The runtimes that every attack of this folder is run on."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.escape.arena import CERTIFIED, Arena, ContainerArena, HostArena
from tests.escape.containers import Docker, Gvisor, Restricted
from tests.escape.outside import Outside
from tests.escape.runtime import Host, Runtime, certificate
from tests.escape.tools_image import build_tools
from tests.escape.upstream import Upstream
from tests.escape.without_notify import HostWithoutNotify
from tests.runtimes.cache import scratch
from tests.runtimes.engine import Engine
from tests.runtimes.gvisor import GVisor, made_for, unpack


@pytest.fixture(scope="session")
def upstream_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in servers' key and certificate."""
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def upstream(upstream_certificate: Path) -> Iterator[Upstream]:
    """The stand-in servers on this machine."""
    servers = Upstream(str(upstream_certificate))
    yield servers
    servers.close()


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


@pytest.fixture
def host_without_notify(host: Host) -> Host:
    """Sessions on this machine as on a kernel without seccomp user notification."""
    return HostWithoutNotify(host.directory, host.upstream)


@pytest.fixture(params=["host", "host_without_notify"])
def either_host(request: pytest.FixtureRequest) -> Host:
    """Sessions on this machine, their execs notified in one case and traced in the other."""
    found: Host = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def outside(upstream_certificate: Path) -> Iterator[Outside]:
    """Stand-in servers on addresses that are not loopback's, in a network namespace of their own."""
    require(os.geteuid() == 0 and shutil.which("ip"), "a network namespace with addresses needs root and iproute2")
    with Outside(str(upstream_certificate)) as made:
        yield made


@pytest.fixture
def outside_host(tmp_path: Path, host: Host, outside: Outside) -> Host:
    """Sessions on this machine whose agent lives beside those servers: what they connect to them is captured."""
    return Host(tmp_path, outside.upstream, outside)


@pytest.fixture
def docker_sessions(tmp_path: Path, upstream_certificate: Path, docker: Engine, image: str) -> Docker:
    """Sessions in Docker containers."""
    return Docker(tmp_path, upstream_certificate, docker, image)


@pytest.fixture
def gvisor_sessions(tmp_path: Path, upstream_certificate: Path, docker: Engine, gvisor_directory: Path) -> Gvisor:
    """Sessions in gVisor sandboxes, made by the machine's own runsc."""
    runsc = GVisor(made_for(docker, "system"), gvisor_directory / "rootfs", gvisor_directory)
    return Gvisor(tmp_path, upstream_certificate, runsc)


RUNTIMES = [
    pytest.param("host", marks=pytest.mark.root),
    pytest.param("docker_sessions", marks=[pytest.mark.root, pytest.mark.docker], id="docker"),
    pytest.param("gvisor_sessions", marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor], id="gvisor"),
]


@pytest.fixture
def restricted_sessions(tmp_path: Path, upstream_certificate: Path, docker: Engine, image: str) -> Restricted:
    """Sessions in Docker containers as Kubernetes' "restricted" profile has them."""
    return Restricted(tmp_path, upstream_certificate, docker, image)


@pytest.fixture
def gvisor_2022(tmp_path: Path, upstream_certificate: Path, docker: Engine, gvisor_directory: Path) -> Gvisor:
    """Sessions in gVisor of 2022."""
    runsc = GVisor(made_for(docker, "system"), gvisor_directory / "rootfs", gvisor_directory)
    return Gvisor(tmp_path, upstream_certificate, runsc, "gvisor-2022")


@pytest.fixture
def gvisor_2024(tmp_path: Path, upstream_certificate: Path, docker: Engine, gvisor_directory: Path) -> Gvisor:
    """Sessions in gVisor of 2024."""
    runsc = GVisor(made_for(docker, "trixie"), gvisor_directory / "rootfs", gvisor_directory)
    return Gvisor(tmp_path, upstream_certificate, runsc, "gvisor-2024")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime in turn."""
    found: Runtime = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def arena_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key and certificate of the servers in an arena."""
    return certificate(tmp_path_factory.mktemp("certificate"), CERTIFIED)


@pytest.fixture(scope="session")
def host_arena(tmp_path_factory: pytest.TempPathFactory, arena_certificate: Path) -> HostArena:
    """An arena on this machine."""
    require(os.geteuid() == 0, "a session with separate users needs root")
    require(_has("session") and _has("parhelia"), "the accounts are missing (make setup makes them)")
    return HostArena(tmp_path_factory.mktemp("arena"), arena_certificate)


@pytest.fixture(scope="session")
def tools(docker: Engine, image: str) -> str:
    """The id of the image with the tools of a session."""
    return build_tools(docker, image)


@pytest.fixture(scope="session")
def docker_arena(
    tmp_path_factory: pytest.TempPathFactory, arena_certificate: Path, docker: Engine, tools: str
) -> ContainerArena:
    """An arena in Docker."""
    container = Docker(tmp_path_factory.mktemp("arena"), arena_certificate, docker, tools)
    return ContainerArena(container, arena_certificate)


@pytest.fixture(scope="session")
def gvisor_arena(
    tmp_path_factory: pytest.TempPathFactory, arena_certificate: Path, docker: Engine, tools: str
) -> Iterator[ContainerArena]:
    """An arena in gVisor, of 2024: node is more than that of 2022 bears."""
    require(Path("/usr/bin/runsc").exists(), "runsc is not installed (make test installs it)")
    with scratch("gvisor-tools") as directory:
        unpack(docker, tools, directory)
        runsc = GVisor(made_for(docker, "trixie"), directory / "rootfs", directory)
        sandbox = Gvisor(tmp_path_factory.mktemp("arena"), arena_certificate, runsc)
        yield ContainerArena(sandbox, arena_certificate)


ARENAS = [
    pytest.param("host_arena", marks=pytest.mark.root, id="host"),
    pytest.param("docker_arena", marks=[pytest.mark.root, pytest.mark.docker], id="docker"),
    pytest.param("gvisor_arena", marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor], id="gvisor"),
]


@pytest.fixture(scope="session", params=ARENAS)
def arena(request: pytest.FixtureRequest) -> Arena:
    """Each arena in turn."""
    found: Arena = request.getfixturevalue(request.param)
    return found
