#!/bin/sh
# Regenerates the lock files from pyproject.toml: every version pinned, every file hashed, no address of any index.
#
# requirements-build.lock  what builds the wheel (build-system.requires)
# requirements.lock        what the agent runs on
# requirements-dev.lock    what the checks need, on the same versions (dependency group "dev")
#
# Local wheels and version caps of this user's pip configuration would leak into a file that everybody installs from:
# they are left out here. The index, the certificates and the proxy of that configuration are kept.
#
# Usage: lock.sh [PYTHON] [--upgrade]     without --upgrade, versions already locked stay where they still fit
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
upgrade=${2:-}
setting() { "$python" -m pip config get "$1" 2>/dev/null | tail -n 1 || true; }

index=$(setting global.index-url)
certificates=$(setting global.cert)
proxy=$(setting global.proxy)
unset PIP_FIND_LINKS PIP_CONSTRAINT PIP_EXTRA_INDEX_URL PIP_NO_INDEX
[ -z "${PIP_INDEX_URL:-$index}" ] || export PIP_INDEX_URL="${PIP_INDEX_URL:-$index}"
[ -z "${PIP_CERT:-$certificates}" ] || export PIP_CERT="${PIP_CERT:-$certificates}"
[ -z "${PIP_PROXY:-$proxy}" ] || export PIP_PROXY="${PIP_PROXY:-$proxy}"
export PIP_CONFIG_FILE=/dev/null

inputs=$(mktemp -d)
trap 'rm -rf "$inputs"' EXIT
group=$inputs/dev.in
both=$inputs/both.in
# What an older supported Python needs in addition or in another version: one lock serves all of them.
# mitmproxy, pyOpenSSL and referencing want typing-extensions before Python 3.13, and mitmproxy caps it there.
echo 'typing-extensions<=4.14' > "$both"
"$python" - <<'EOF' > "$group"
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["dependency-groups"]["dev"], sep="\n")
EOF

compile() {
    "$python" -m piptools compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-config --no-header \
        ${upgrade:+"$upgrade"} --no-annotate --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@"
}
compile --build-deps-for wheel --only-build-deps --output-file requirements-build.lock pyproject.toml
compile --output-file requirements.lock pyproject.toml "$both"
compile --constraint requirements.lock --constraint requirements-build.lock --output-file requirements-dev.lock "$group"
