# The session image's lower half: the agent in /opt/parhelia, both accounts, the default policy, the write roots.
# Put the tools of a session on top of it (FROM this image; USER stays root: the agent drops what it can itself).
#
# Built with BuildKit. Behind a private certificate authority or index, hand pip what it needs as secrets; they are
# mounted while a step runs and never become part of a layer:
#   docker build --secret id=ca,src=ca-bundle.pem --secret id=pip,src=pip.conf .

# The one compiled piece: what coding agents start before each tool call (10 KB, static). The compiler stays in its stage.
FROM python:3.13-slim-trixie AS native
WORKDIR /build
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    set -eu; \
    if ! command -v gcc > /dev/null; then \
        ca=; if [ -s /run/secrets/ca.pem ]; then ca=--option=Acquire::https::CaInfo=/run/secrets/ca.pem; fi; \
        apt-get $ca --quiet --quiet update; \
        DEBIAN_FRONTEND=noninteractive apt-get $ca --quiet --quiet --yes --no-install-recommends install gcc > /dev/null; \
    fi
COPY container/build-hook.sh container/
COPY agent/enforce/commands/native agent/enforce/commands/native
RUN container/build-hook.sh parhelia-hook && test -x parhelia-hook

FROM python:3.13-slim-trixie AS build
WORKDIR /build
COPY requirements-build.lock requirements.lock ./
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.pem --mount=type=secret,id=pip,target=/run/secrets/pip.conf \
    set -eu; \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    if [ -s /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi; \
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1; \
    python3 -m venv tools; \
    python3 -m venv --without-pip /opt/parhelia; \
    tools/bin/python -m pip install --require-hashes -r requirements-build.lock; \
    tools/bin/python -m pip --python /opt/parhelia/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY policies policies
COPY agent agent
COPY --from=native /build/parhelia-hook agent/enforce/commands/native/
RUN set -eu; \
    tools/bin/python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheel .; \
    tools/bin/python -m pip --python /opt/parhelia/bin/python install --no-index --no-deps wheel/*.whl
COPY container/hooks container/hooks
COPY container/shell container/shell
COPY container/ssh_config container/
COPY entrypoint.sh ./
# What lies outside of /opt, laid out with its final modes; all of it belongs to root. The hook's client is started by the
# session's programs, the policy is read by the agent alone.
RUN set -eu; \
    install -D -m 0755 entrypoint.sh root/entrypoint.sh; \
    install -D -m 0644 container/hooks/claude-code.json root/etc/claude-code/managed-settings.json; \
    install -D -m 0644 container/hooks/codex.toml root/etc/codex/requirements.toml; \
    install -D -m 0644 container/hooks/gemini.json root/etc/gemini-cli/settings.json; \
    install -D -m 0644 container/hooks/cursor.json root/etc/cursor/hooks.json; \
    install -D -m 0644 container/ssh_config root/etc/ssh/ssh_config.d/50-parhelia.conf; \
    install -D -m 0755 agent/enforce/commands/native/parhelia-hook root/usr/local/lib/parhelia/parhelia-hook; \
    install -D -m 0755 agent/enforce/commands/hook_client.py root/usr/local/lib/parhelia/hook_client.py; \
    install -D -m 0755 agent/enforce/egress/ssh_proxy.py root/usr/local/lib/parhelia/ssh_proxy.py; \
    for name in sh bash dash; do \
        install -D -m 0755 agent/enforce/commands/native/parhelia-hook root/usr/local/lib/parhelia/shim/$name; \
    done; \
    install -D -m 0644 container/shell/interactive.bash root/usr/local/lib/parhelia/interactive.bash; \
    install -D -m 0644 container/shell/profile.sh root/etc/profile.d/parhelia.sh; \
    install -d -m 0755 root/etc/parhelia root/usr/local/bin; \
    cp -RL policies root/etc/parhelia/policies; \
    chmod -R go= root/etc/parhelia/policies; \
    ln -s /opt/parhelia/bin/parhelia-agent root/usr/local/bin/parhelia-agent

FROM python:3.13-slim-trixie
COPY --from=build /opt/parhelia /opt/parhelia
COPY --from=build /build/root /
# Fixed numbers: volumes keep their owners from one image to the next. The log's root is the agent's alone.
RUN --mount=type=bind,source=container/users.sh,target=/run/users.sh \
    set -eu; \
    sh /run/users.sh 971 1000; \
    sed -i '1i . /usr/local/lib/parhelia/interactive.bash' /etc/bash.bashrc; \
    install -d -m 0755 /vol /vol/parhelia; \
    install -d -m 0755 -o session -g session /vol/parhelia/workspaces /vol/parhelia/checkpoints; \
    install -d -m 0700 /vol/parhelia/audit
# Docker's own images of Python come without compiled modules: each new container would compile the library anew, which
# takes longer than all else of a session's start. All of them lie in one file, too (agent/compiled.py).
RUN /opt/parhelia/bin/python -I -c 'from agent import compiled; compiled.gather()'
WORKDIR /vol/parhelia/workspaces
ENTRYPOINT ["/entrypoint.sh"]
