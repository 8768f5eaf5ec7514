#!/bin/sh
# Compiles the hook client: one static program without a C library. No headers of the system are needed, only a compiler.
#
# Usage: build-hook.sh OUTPUT     CC=… names the compiler (gcc or clang; cross compilers too)
# Without a compiler: says so and exits 0; the Python client (hook_client.py) then does the same, some 30 ms slower.
set -eu
source=$(dirname "$0")/../agent/enforce/commands/native/parhelia_hook.c
output=$1
compiler=${CC:-}
for name in cc gcc clang; do
    [ -n "$compiler" ] || compiler=$(command -v "$name" || true)
done
if [ -z "$compiler" ]; then
    rm -f "$output"
    echo "note: no C compiler (cc, gcc, clang), so the native hook client is not built; hook_client.py takes its place." >&2
    exit 0
fi
# shellcheck disable=SC2086  # CC may hold options
$compiler -std=c11 -Os -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fno-pie \
    -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections -fdata-sections \
    -nostdlib -nostartfiles -static -no-pie -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noexecstack -s \
    ${HOOK_SOCKET:+"-DSOCKET=\"$HOOK_SOCKET\""} -o "$output.new" "$source"
chmod 0755 "$output.new"
mv "$output.new" "$output"
