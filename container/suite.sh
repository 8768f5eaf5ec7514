#!/bin/sh
# suite.sh PYTHON: the whole suite, in two halves at once: what needs a container, and all else. They share nothing but
# the machine, and much of either is waiting.
#
# The second half is shown as it runs, the first when both have ended. The exit status is that of the half that failed.
set -u
python=$1

shown=$(mktemp)
"$python" -m pytest -m docker > "$shown" 2>&1 &
containers=$!
trap 'kill -INT "$containers" 2> /dev/null; wait "$containers"; rm -f "$shown"; exit 130' INT TERM
"$python" -m pytest -m "not docker"
status=$?
wait "$containers" || status=$?
trap - INT TERM
echo "what needs a container:"
cat "$shown"
rm -f "$shown"
exit "$status"
