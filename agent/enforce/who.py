"""Who made a stopped call, as the record shows it."""

from __future__ import annotations

import os
from contextlib import suppress

from agent.enforce.memory import Identity, readable
from agent.policy.request import Origin

_ARGV_BYTES = 1 << 14


def origin_of(who: Identity, mechanism: str, extra: tuple[tuple[str, str], ...] = ()) -> Origin:
    """Ids as they were read from the task; program and argv as /proc shows them now, left out where it does not."""
    exe, argv = None, None
    with suppress(OSError):
        exe = os.readlink(f"/proc/{who.tgid}/exe")  # noqa: PTH115
        with open(f"/proc/{who.tgid}/cmdline", "rb") as file:
            argv = tuple(readable(word) for word in file.read(_ARGV_BYTES).split(b"\0")[:-1])
    return Origin(mechanism, pid=who.tgid, ppid=who.ppid, uid=who.uid, exe=exe, argv=argv, extra=extra)


def signed(word: int) -> int:
    """The int in the low half of a system call's argument."""
    low = word & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low
