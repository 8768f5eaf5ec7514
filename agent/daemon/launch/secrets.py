"""The session's secrets: read once, before anything of the session runs, and replaced by placeholders for it.

Rules kept here: a secret that can't be read, or can't be sent in a header, ends the start (exit 5) under its name; a
value is in no message, no file, no argument and no environment from here on; what the values come from must be out of
the session's reach (exit 4 otherwise); every read is recorded before its value is used.

A value comes from a variable of the agent's own environment (which travels in the run's specification, a memory file),
from a file, or from the output of a command, which runs as the agent with a clean environment and a time limit.
"""

from __future__ import annotations

import os
import re
import secrets as randomness
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from agent.daemon.base.places import Exposed, closed
from agent.daemon.base.spec import RunSpec
from agent.daemon.base.trust import movable
from agent.enforce.egress.needles import MARK, MIN_LENGTH
from agent.enforce.egress.secrets import HeldSecret, Secrets
from agent.policy.model import Policy, Secret, SourceKind

COMMAND_SECONDS: Final = 10.0
MAX_VALUE: Final = 16 * 1024
_SENDABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_COMMAND_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SecretMissing(Exception):
    """A secret's value can't be had; the text names the secret and the source, never a value."""


def secrets_of(policy: Policy) -> tuple[Secret, ...]:
    """Every entry of the policy (only its first layer can have any)."""
    return tuple(entry for layer in policy.layers for entry in layer.secrets)


def secret_files(policy: Policy) -> list[str]:
    """The files that values come from, which the session must never read."""
    return [entry.source.value[0] for entry in secrets_of(policy) if entry.source.kind is SourceKind.FILE]


def read_secrets(
    policy: Policy, spec: RunSpec, recorded: Callable[[Secret], None], *, command_seconds: float = COMMAND_SECONDS
) -> Secrets:
    """Read every value; `recorded` is called before each. Raises SecretMissing, Exposed, and what `recorded` raises."""
    held = []
    for entry in secrets_of(policy):
        recorded(entry)
        value = _value(entry, spec, command_seconds)
        if len(value) < MIN_LENGTH:
            raise SecretMissing(f"secret {entry.name}: its value has fewer than {MIN_LENGTH} characters")
        if not _SENDABLE.fullmatch(value):
            raise SecretMissing(f"secret {entry.name}: its value has characters that no header field can carry")
        held.append(HeldSecret(entry.name, placeholder(entry.name), value))
    return Secrets(held)


def placeholder(name: str) -> str:
    """A fresh text that stands for the secret: recognisable, unguessable, and short enough for one DNS label."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:10]
    return f"{MARK.decode()}{plain}-{randomness.token_hex(15)}"


def placeholder_environment(policy: Policy, secrets: Secrets) -> dict[str, str]:
    """The session's variables that hold placeholders."""
    return {entry.env: secrets[entry.name].placeholder for entry in secrets_of(policy) if entry.env is not None}


def check_kept(secrets: Secrets, environment: Mapping[str, str], command: Sequence[str]) -> None:
    """No value may be in what the session is started with. Raises Exposed."""
    for name, text in environment.items():
        found = secrets.value_in(os.fsencode(text))
        if found is not None:
            raise Exposed(f"the session's variable {name} would hold the secret {found}: do not pass it on")
    for word in command:
        found = secrets.value_in(os.fsencode(word))
        if found is not None:
            raise Exposed(f"the session's command line holds the secret {found}: take it out")


def _value(entry: Secret, spec: RunSpec, command_seconds: float) -> str:
    match entry.source.kind:
        case SourceKind.ENV:
            raw = os.fsencode(spec.caller_env.get(entry.source.value[0], ""))
        case SourceKind.FILE:
            raw = _from_file(entry, spec)
        case SourceKind.COMMAND:
            raw = _from_command(entry, spec, command_seconds)
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not raw:
        raise SecretMissing(f"secret {entry.name}: {_source(entry)} is missing or empty")
    return raw.decode("latin-1")


def _from_file(entry: Secret, spec: RunSpec) -> bytes:
    path = entry.source.value[0]
    _check_unmovable(entry, path, spec)
    _check_closed(entry, path, spec)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretMissing(f"secret {entry.name}: {path} is not a regular file")
            data = file.read(MAX_VALUE + 1)
    except OSError as error:
        raise SecretMissing(f"secret {entry.name}: {path}: {error.strerror}") from error
    if len(data) > MAX_VALUE:
        raise SecretMissing(f"secret {entry.name}: {path} is longer than {MAX_VALUE} bytes")
    return data


def _from_command(entry: Secret, spec: RunSpec, seconds: float) -> bytes:
    """Its standard error is not shown: helpers print what they were given."""
    program = shutil.which(entry.source.value[0], path=_COMMAND_PATH)
    if program is None:
        raise SecretMissing(f"secret {entry.name}: there is no program {entry.source.value[0]}")
    _check_unmovable(entry, program, spec)
    process = subprocess.Popen(
        [program, *entry.source.value[1:]],
        env={"PATH": _COMMAND_PATH, "LANG": "C.UTF-8"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SecretMissing(f"secret {entry.name}: its command did not end within {seconds:g} s") from None
    finally:
        with suppress(ProcessLookupError):  # what it left behind, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        raise SecretMissing(f"secret {entry.name}: its command ended with status {process.returncode}")
    if len(output) > MAX_VALUE:
        raise SecretMissing(f"secret {entry.name}: its command says more than {MAX_VALUE} bytes")
    return output


def _check_closed(entry: Secret, path: str, spec: RunSpec) -> None:
    if spec.egress_user is not None and not closed(path, spec.session_user.uid, spec.session_user.gid):
        raise Exposed(f"secret {entry.name}: {path} can be read by the session's user: chmod 600 it, owner root")


def _check_unmovable(entry: Secret, path: str, spec: RunSpec) -> None:
    if spec.egress_user is None:  # one user for all
        return
    try:
        name = movable(path, spec.session_user)
    except OSError as error:
        raise SecretMissing(f"secret {entry.name}: {path}: {error.strerror}") from error
    if name is not None:
        raise Exposed(f"secret {entry.name} comes from {path}, and the session's user may replace {name}")


def _source(entry: Secret) -> str:
    match entry.source.kind:
        case SourceKind.ENV:
            return f"the variable {entry.source.value[0]} of the agent's environment"
        case SourceKind.FILE:
            return f"the file {entry.source.value[0]}"
        case SourceKind.COMMAND:
            return f"the output of {entry.source.value[0]}"
