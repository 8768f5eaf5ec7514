#!/bin/sh
# Makes the two accounts of the agent where they are missing: `parhelia` (the egress process) and `session` (what the
# session runs as). Without root it says so and goes on: the agent then runs in its one-uid mode, and `doctor` says what
# that is worth.
#
# Usage: users.sh [UID of parhelia] [UID of session]     without numbers the system chooses
set -eu

ensure() { # NAME HOME SHELL [UID]
    ! getent passwd "$1" >/dev/null || return 0
    set -- "$@" ""
    getent group "$1" >/dev/null || groupadd --system ${4:+--gid "$4"} "$1"
    useradd --system --gid "$1" --home-dir "$2" --shell "$3" ${4:+--uid "$4"} --no-create-home "$1"
    mkdir -p "$2"
    chown "$1:$1" "$2"
    chmod 0700 "$2"
    echo "made the account $1 ($(id "$1"))"
}

if [ "$(id -u)" -ne 0 ]; then
    if ! getent passwd parhelia >/dev/null || ! getent passwd session >/dev/null; then
        echo "note: not root, so the accounts 'parhelia' and 'session' were not made; run this once as root:" >&2
        echo "      sudo $0" >&2
    fi
    exit 0
fi
if ! command -v useradd >/dev/null; then
    echo "useradd is missing: install it (Debian: passwd; Alpine: shadow) or make the accounts 'parhelia' and 'session'." >&2
    exit 1
fi
ensure parhelia /var/lib/parhelia /usr/sbin/nologin "${1:-}"
ensure session /home/session "$(command -v bash || echo /bin/sh)" "${2:-}"
