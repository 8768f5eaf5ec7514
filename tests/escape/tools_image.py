"""The project's image with the tools of a session on top: what the client matrix drives in containers.

The tools come first, so that a change of the agent does not install them anew; the agent is copied out of its own
image.
"""

from __future__ import annotations

from tests.runtimes.engine import BASE_IMAGE, Engine
from tests.runtimes.fixtures import CHECKOUT

TOOLS = "git curl wget nodejs openssh-client openssh-server ca-certificates"
DOCKERFILE = f"""\
FROM {{agent}} AS agent
FROM {BASE_IMAGE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q --yes --no-install-recommends {TOOLS} \\
    && rm -rf /var/lib/apt/lists/*
COPY --from=agent /opt/parhelia /opt/parhelia
COPY --from=agent /etc/parhelia /etc/parhelia
COPY --from=agent /etc/ssh /etc/ssh
COPY --from=agent /usr/local /usr/local
COPY --from=agent /vol /vol
COPY --from=agent /entrypoint.sh /entrypoint.sh
COPY container/users.sh /tmp/users.sh
RUN sh /tmp/users.sh 971 1000
WORKDIR /vol/parhelia/workspaces
ENTRYPOINT ["/entrypoint.sh"]
"""


def build_tools(engine: Engine, image: str) -> str:
    """The id of the image."""
    name = f"parhelia-tests-agent:{image.rpartition(':')[2][:12]}"
    engine.must("tag", image, name)  # and left: taking away its only name would take away the image
    options = ("--network=host", "--quiet", "--label", "parhelia.tests=1", "--file", "-")
    built = engine.must("build", *options, str(CHECKOUT), timeout=900, stdin=DOCKERFILE.format(agent=name))
    return built.split()[-1]
