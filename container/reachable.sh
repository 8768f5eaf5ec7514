#!/bin/sh
# Says which of the given paths another user of this machine cannot reach: the session runs as another user, and what it
# needs (and what the launcher opens after it has given up root) must not lie in a private home. Always exits 0.
set -eu
for given in "$@"; do
    path=$(readlink -f "$given")
    while [ "$path" != / ]; do
        case $(stat -c %A "$path") in
            *[xt] | ???????r*) ;;
            *)
                echo "note: $(readlink -f "$given") cannot be reached by the session's user: $path is private." >&2
                case $given in
                    */python*)
                        echo "      Programs of the session can't use this Python. To avoid that, install a Python for all users" >&2
                        echo "      and run: make clean setup PYTHON=/usr/local/bin/python3.13   (or wherever it is)" >&2 ;;
                    *) echo "      Sessions can't read this checkout. To avoid that, move it to a place that all users can read." >&2 ;;
                esac
                break ;;
        esac
        path=$(dirname "$path")
    done
done
