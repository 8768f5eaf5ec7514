"""Processes as /proc shows them (proc(5)): what confines one, who it belongs to, and its words for the record.

Rules kept here: a process may vanish between two reads, and an entry may be closed to us: that is None or nothing,
never an error; words are bounded, and credentials in them are redacted.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

from agent.shell.redact import redact_argv
from agent.values import dataclass

MAX_WORDS: Final = 16
MAX_WORD: Final = 200
_CMDLINE_BYTES: Final = 4096
_FIELD: Final = re.compile(rb"^(State|PPid|Uid|NoNewPrivs|Seccomp|Seccomp_filters|Kthread):\t(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Standing:
    """What /proc/PID/status says of a process. `filters`: its seccomp filters, 0 where the kernel (before 5.9) does not
    say; `kernel`: no program."""

    parent: int
    uid: int
    no_new_privs: bool
    seccomp: int
    filters: int
    zombie: bool
    kernel: bool


def standing(pid: int) -> Standing | None:
    """None where it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(_FIELD.findall(file.read()))
        return Standing(
            parent=int(fields[b"PPid"]),
            uid=int(fields[b"Uid"]),
            no_new_privs=fields.get(b"NoNewPrivs", b"0") == b"1",
            seccomp=int(fields.get(b"Seccomp", b"0")),
            filters=int(fields.get(b"Seccomp_filters", b"0")),
            zombie=fields[b"State"] in (b"Z", b"X"),
            kernel=fields.get(b"Kthread", b"0") == b"1" or pid == 2,
        )
    except (OSError, KeyError, ValueError):
        return None


def started(pid: int) -> int:
    """When it started, in ticks since boot: with the pid its identity. 0 where it is gone."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        stat = file.read()
        return int(stat[stat.rfind(b")") + 2 :].split()[19])
    return 0


def words(pid: int) -> list[str]:
    """Its argv, the first of them and cut; empty where it is gone, or has none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            found = raw.read(_CMDLINE_BYTES).removesuffix(b"\0").split(b"\0")
    except OSError:
        return []
    return [text(word) for word in found[:MAX_WORDS]] if found != [b""] else []


def shown(argv: list[str]) -> list[str]:
    """The words as they go on record."""
    return [word if len(word) <= MAX_WORD else word[:MAX_WORD] + "…" for word in redact_argv(tuple(argv))]


def program(pid: int) -> str | None:
    """The file it runs, None where that is closed to us (another account's, without CAP_SYS_PTRACE)."""
    try:
        return text(os.readlink(f"/proc/{pid}/exe".encode()))  # noqa: PTH115  (bytes)
    except OSError:
        return None


def text(raw: bytes) -> str:
    """Bytes of a file's name as the log has them."""
    return raw.decode("utf-8", "backslashreplace")
