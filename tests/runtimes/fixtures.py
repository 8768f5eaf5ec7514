"""The fixtures by which tests reach Docker and gVisor; see the package's docstring."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.runtimes.cache import scratch
from tests.runtimes.engine import KUBERNETES_RESTRICTED, Engine, client, running_engine
from tests.runtimes.gvisor import GVisor, made_for, unpack

CHECKOUT = Path(__file__).parents[2]

FIRST_BUILD_SECONDS = 1500

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a container is marked before `-m` asks. On a new machine the first such test waits for a base system
    and an image to be built."""
    for item in items:
        if "docker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)
    for item in [item for item in items if item.get_closest_marker("docker")][:1]:
        item.add_marker(pytest.mark.timeout(FIRST_BUILD_SECONDS))


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    """The suite's Docker engine, shared by all tests and by concurrent runs."""
    require(os.geteuid() == 0, "a Docker engine of the suite's own needs root")
    require(shutil.which("dockerd") and client(), "dockerd is not installed (make test installs docker.io)")
    require(shutil.which("debootstrap"), "debootstrap is not installed (make test installs it)")
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def image(docker: Engine) -> str:
    """The id of the image built from this checkout."""
    return docker.build(CHECKOUT)


@pytest.fixture
def docker_run(docker: Engine, image: str) -> Run:
    """Runs a container of the image with Docker's default capabilities and seccomp profile."""

    def run(*command: str, options: tuple[str, ...] = (), **rest: object) -> subprocess.CompletedProcess[str]:
        return docker.run(image, command, options=options, **rest)  # type: ignore[arg-type]

    return run


@pytest.fixture
def restricted_run(docker_run: Run) -> Run:
    """Runs a container of the image as Kubernetes' "restricted" profile would."""

    def run(*command: str, options: tuple[str, ...] = (), **rest: object) -> subprocess.CompletedProcess[str]:
        return docker_run(*command, options=(*KUBERNETES_RESTRICTED, *options), **rest)

    return run


@pytest.fixture(scope="session")
def gvisor_directory(docker: Engine, image: str) -> Iterator[Path]:
    """The image unpacked for gVisor, and the place of its bundles."""
    require(Path("/usr/bin/runsc").exists(), "runsc is not installed (make test installs it)")
    with scratch("gvisor") as directory:
        unpack(docker, image, directory)
        yield directory


@pytest.fixture(params=["system", "trixie"])
def gvisor_run(request: pytest.FixtureRequest, docker: Engine, gvisor_directory: Path) -> GVisor:
    """Runs the image in gVisor: once with the machine's runsc, once with trixie's."""
    return GVisor(made_for(docker, request.param), gvisor_directory / "rootfs", gvisor_directory)
