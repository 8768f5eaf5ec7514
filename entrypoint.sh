#!/bin/sh
# The image's entrypoint: the agent starts, and the given command becomes its confined session. Without a command, a login
# shell. Configuration comes by the environment (PARHELIA_POLICY_DIR, PARHELIA_AUDIT_DIR, PARHELIA_PUSHGATEWAY_URL, …).
set -eu
[ "$#" -gt 0 ] || set -- /bin/bash -l
exec /opt/parhelia/bin/parhelia-agent run -- "$@"
