#!/bin/sh
# Installs the Debian packages that the suite drives (as root, where missing), without starting their services, without
# removing what is there, and upgrading no more than what they depend on. Without root or apt: says what is missing; the
# tests that need it skip with their reason (or fail under PARHELIA_TEST_REQUIRE=all).
set -eu

# a file of the package, then the package
wanted='/usr/sbin/dockerd docker.io
/usr/bin/runsc runsc
/usr/sbin/debootstrap debootstrap
/usr/bin/prometheus prometheus
/usr/bin/prometheus-pushgateway prometheus-pushgateway
/usr/bin/prometheus-alertmanager prometheus-alertmanager
/usr/sbin/squid squid-openssl
/usr/sbin/nft nftables
/usr/bin/curl curl
/usr/bin/wget wget
/usr/bin/git git
/usr/bin/ssh openssh-client
/usr/sbin/sshd openssh-server
/usr/bin/go golang-go
/usr/bin/tmux tmux
/usr/bin/gcc gcc
/usr/include/stdio.h libc6-dev
/usr/bin/unshare util-linux'

missing=$(echo "$wanted" | while read -r file package; do [ -e "$file" ] || echo "$package"; done | sort -u)
command -v ip >/dev/null || missing="$missing iproute2"
missing=$(echo $missing)
[ -n "$missing" ] || [ ! -e /usr/bin/docker ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "note: the suite also uses these Debian packages, which are not here: $missing" >&2
    exit 0
fi

# Debian starts a service on installation unless policy-rc.d answers 101.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 0755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
[ -n "$(apt-cache show docker.io 2>/dev/null)" ] || apt-get update > /dev/null 2>&1 || true
# Since Debian 13 the client and its builder are packages of their own.
if [ ! -e /usr/bin/docker ] && [ -n "$(apt-cache show docker-buildx 2>/dev/null)" ]; then
    missing="$missing docker-cli docker-buildx"
fi
echo "installing for the tests: $missing"
log=$(mktemp)
install() {
    # shellcheck disable=SC2086  # a list of package names
    apt-get install --option DPkg::Lock::Timeout=300 --yes --no-install-recommends --no-remove $missing > "$log" 2>&1
}
if ! install && ! { apt-get update > "$log" 2>&1 || true; install; }; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "apt-get could not install: $missing" >&2
    exit 1
fi
rm -f "$log"
