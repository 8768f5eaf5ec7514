"""Placeholders that the session reads from a file: made below its home, by descriptor, and given to it.

Rules kept here: nothing that an earlier session left is followed (no symlink on the way, none at the end) and no file
is overwritten but one that holds a placeholder of an earlier session; the file appears whole or not at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Final

from agent.daemon.base.places import Exposed
from agent.daemon.base.spec import RunSpec, User
from agent.daemon.launch.secrets import secrets_of
from agent.enforce.egress.needles import MARK
from agent.enforce.egress.secrets import Secrets
from agent.linux import exact
from agent.policy.model import Policy

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_placeholders(policy: Policy, secrets: Secrets, home: str, spec: RunSpec) -> None:
    """Every placeholder that the policy wants in a file. Raises Exposed, OSError."""
    owner = None if spec.egress_user is None else spec.session_user
    for entry in secrets_of(policy):
        if entry.file is not None:
            write_placeholder(home, entry.file, secrets[entry.name].placeholder, owner)


def write_placeholder(home: str, file: str, text: str, owner: User | None) -> None:
    """Write `text` to `file` (``~/…``, or absolute below `home`), mode 0600, for `owner` (None: this account).

    Raises Exposed where the file would lie elsewhere or would take the place of something else, OSError.
    """
    parts = _below(home, file)
    with _directory(home, parts[:-1], owner) as directory:
        _check_replaceable(directory, parts[-1], file)
        fresh = f".{parts[-1]}.{os.getpid()}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        try:
            os.write(descriptor, text.encode() + b"\n")
            if owner is not None:
                os.fchown(descriptor, owner.uid, owner.gid)
            os.rename(fresh, parts[-1], src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(fresh, dir_fd=directory)
            raise
        finally:
            os.close(descriptor)


def _below(home: str, file: str) -> tuple[str, ...]:
    path = PurePosixPath(home, file[2:]) if file.startswith("~/") else PurePosixPath(file)
    if not path.is_relative_to(home) or ".." in path.parts or path == PurePosixPath(home):
        raise Exposed(f"the placeholder file {file} is not below the session's home {home}")
    return path.relative_to(home).parts


@contextmanager
def _directory(home: str, parts: tuple[str, ...], owner: User | None) -> Iterator[int]:
    """The directory `parts` below `home`, made where it is missing."""
    at = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in parts:
            try:
                below = os.open(name, _DIRECTORY, dir_fd=at)
            except FileNotFoundError:
                below = exact.make_directory(name, at, 0o700, None if owner is None else (owner.uid, owner.gid))
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _check_replaceable(directory: int, name: str, file: str) -> None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as found:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not found.read(len(MARK)) == MARK:
            raise Exposed(f"{file} is there already and holds no placeholder: remove it, or name another file")
