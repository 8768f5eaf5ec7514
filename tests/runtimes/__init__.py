"""The suite's container runtimes: a Docker engine of its own, a base image, the project's image, and gVisor.

For tests (fixtures.py, a plugin of tests/conftest.py, so every folder has them):
    docker              the engine: `docker.cli("ps")`, `docker.gateway` (the host's address as containers see it)
    image               the id of the image built from this checkout
    docker_run(*cmd, options=(), entrypoint=None, stdin=None, timeout=120)   Docker's default capabilities and seccomp
    restricted_run(…)   the same in the Kubernetes "restricted" profile
    gvisor_run(*cmd, entrypoint=True, user=0, capabilities=…, environment={}, mounts=(), stdin=None, timeout=120)
The engine is shared, and the second build comes from its cache.
On a new machine the first such test waits minutes for the base system: `pytest.mark.timeout` accordingly.
All return subprocess.CompletedProcess with text, and never raise because of an exit status.
"""
