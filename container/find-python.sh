#!/bin/sh
# Prints the Python that the environment is to be made from: 3.12 or newer, with venv and ensurepip.
#
# Order: $PYTHON (if set, it or nothing) · python3.13, python3.12, python3 … on PATH · uv's · pyenv's. An interpreter that
# every user of the machine can reach is preferred to one in a private home: the confined session runs as another user.
# Nothing fitting: exit 1, and stderr says what to install.
set -eu

# Prints the interpreter behind $1 where it fits. A pyenv shim of a version that is not active fails here, and is passed by.
probe() {
    "$1" -c '
import sys
if sys.version_info < (3, 12):
    sys.exit(1)
import ensurepip, os, venv
print(os.path.realpath(sys._base_executable))' 2>/dev/null
}

everyone_reaches() {
    path=$1
    while [ "$path" != / ]; do
        case $(stat -L -c %A "$path") in *[xt]) ;; *) return 1 ;; esac
        path=$(dirname "$path")
    done
}

candidates() {
    for name in python3.13 python3.14 python3.12 python3; do
        old_ifs=$IFS
        IFS=:
        for directory in $PATH; do
            IFS=$old_ifs
            [ ! -x "$directory/$name" ] || echo "$directory/$name"
        done
        IFS=$old_ifs
    done
    if command -v uv >/dev/null 2>&1; then
        uv python find --no-project --system '>=3.12' 2>/dev/null || true
    fi
    for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3 \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/*/bin/python3; do
        [ ! -x "$path" ] || echo "$path"
    done
}

if [ -n "${PYTHON:-}" ]; then
    probe "$PYTHON" && exit 0
    echo "PYTHON=$PYTHON is not a Python 3.12 or newer with venv and ensurepip." >&2
    exit 1
fi

private=
list=$(candidates)
old_ifs=$IFS
IFS='
'
for candidate in $list; do
    found=$(probe "$candidate") || continue
    if everyone_reaches "$found"; then
        echo "$found"
        exit 0
    fi
    [ -n "$private" ] || private=$found
done
IFS=$old_ifs
if [ -n "$private" ]; then
    echo "$private"
    exit 0
fi

cat >&2 <<'EOF'
No Python 3.12 or newer (with venv and ensurepip) was found. Looked at: $PYTHON, python3.* on PATH, uv, pyenv.
Install one, for instance:
    apt-get install python3 python3-venv          (Debian 13, Ubuntu 24.04 and newer)
    UV_PYTHON_INSTALL_DIR=/opt/python uv python install 3.13
    pyenv install 3.13
or name one:  make setup PYTHON=/path/to/python3.13
EOF
exit 1
