#!/bin/sh
# suite.sh PYTHON: the whole suite, in two halves at once: what needs a container, and all else. They share nothing but
# the machine, and much of either is waiting.
#
# The second half is shown as it runs, the first when both have ended. Tests that failed are told, and run again by
# themselves (tests/again.py). The exit status is that of the half that failed.
set -u
python=$1

kept=$(mktemp -d)
"$python" -m pytest -o "cache_dir=$kept/containers" -m docker > "$kept/shown" 2>&1 &
containers=$!
trap 'kill -INT "$containers" 2> /dev/null; wait "$containers"; rm -rf "$kept"; exit 130' INT TERM
"$python" -m pytest -o "cache_dir=$kept/rest" -m "not docker"
status=$?
wait "$containers"
in_containers=$?
trap 'rm -rf "$kept"; exit 130' INT TERM
echo "what needs a container:"
cat "$kept/shown"

# What pytest did not end with "tests failed" (1) is final.
if [ "$status" -eq 1 ]; then
    "$python" -m tests.again "$kept/rest"
    status=$?
fi
if [ "$in_containers" -eq 1 ]; then
    "$python" -m tests.again "$kept/containers"
    in_containers=$?
fi
[ "$in_containers" -eq 0 ] || status=$in_containers
rm -rf "$kept"
exit "$status"
