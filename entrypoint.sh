#!/bin/sh
# The image's entrypoint: the agent starts, and the given command becomes its confined session. Without a command, a login
# shell. Configuration comes by the environment (PARHELIA_POLICY_DIR, PARHELIA_AUDIT_DIR, PARHELIA_PUSHGATEWAY_URL, …).
set -eu
# A session without a network namespace of its own asks for names by TCP only. glibc is told so in the environment (resolver(5));
# Go and others read it here. The file is the container's own; one that can't be written stays as it is.
if [ -w /etc/resolv.conf ] && ! grep -q '^options.*use-vc' /etc/resolv.conf; then
    printf 'options use-vc\n' >> /etc/resolv.conf || :
fi
[ "$#" -gt 0 ] || set -- /bin/bash -l
exec /opt/parhelia/bin/parhelia-agent run -- "$@"
