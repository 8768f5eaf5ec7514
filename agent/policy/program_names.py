"""Programs by their names: what else a program is called, and groups of them.

Rules kept here: a rule about a program is about its versions (``python3.12``), variants (``mkfs.ext4``) and other names
as well; wildcards are the shell's.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType
from typing import Final

_ALSO_CALLED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "mkfs": ("mke2fs", "mkdosfs", "mkntfs", "mkexfatfs", "mkreiserfs", "mkudffs", "newfs", "mkfs_*", "newfs_*"),
        "node": ("nodejs",),
        "awk": ("gawk", "mawk", "nawk"),
        "vim": ("vi", "nvim", "view", "ex"),
        "nc": ("ncat", "netcat", "nc.traditional", "nc.openbsd"),
        "docker": ("podman",),
        "apt": ("apt-get",),
    }
)
_VERSIONED: Final = frozenset(
    ("python", "pip", "perl", "ruby", "node", "lua", "luajit", "php", "gcc", "clang", "java", "tclsh", "wish")
)

GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "<shell>": (
            *("sh", "bash", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "yash", "fish", "csh", "tcsh", "rbash"),
        ),
        "<interpreter>": (
            *("python", "pypy*", "perl", "ruby", "node", "deno", "bun", "php", "lua", "luajit", "tclsh", "wish"),
            *("expect", "awk", "Rscript", "julia", "guile"),
        ),
    }
)
"""What a rule names in angle brackets instead of each program."""


def program_fits(name: str, program: str) -> bool:
    """True where a rule about `name` is about `program`: itself, its variants, versions and other names, or a member of
    the group that `name` is."""
    if name == program or program.startswith(name + "."):
        return True
    if name in GROUPS:
        return any(program_fits(member, program) for member in GROUPS[name])
    if any(char in name for char in "*?["):
        return fnmatchcase(program, name)
    if name in _VERSIONED and program.startswith(name) and not program[len(name) :].strip("0123456789.-"):
        return True
    return any(fnmatchcase(program, other) for other in _ALSO_CALLED.get(name, ()))


@lru_cache(maxsize=4096)  # asked of the same rules at every exec
def any_fits(names: tuple[str, ...], program: str) -> bool:
    """True where one of `names` is about `program`, whatever its case: file systems of other machines that are mounted
    here tell no case apart, and ``git.exe`` is git there."""
    plain = plain_name(program)
    return any(program_fits(name, program) for name in names) or (
        plain != program and any(program_fits(name, plain) for name in names)
    )


def plain_name(program: str) -> str:
    """The name in lower case, without the ``.exe`` that other systems put behind it."""
    return program.lower().removesuffix(".exe")
