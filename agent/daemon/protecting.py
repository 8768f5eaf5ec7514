"""Protected places of this machine: found in the trees that the session may write, and compiled to what holds them.

A place that is there is mounted read-only over itself; the directories above it, up to the granted root, are mounted
over themselves (pinned), so that none is renamed away with it; a symlink is pinned and what it leads to is read-only; a
file with several names is read-only under each of them. Names that do not exist yet are reserved (agent.daemon.
reserving) where they are known: in the home, at the top of a working directory that is in use, and wherever the
directory that a pattern leads through is there already.

Rules kept here: nothing that the session could have put there is followed; the search is bounded, and what the bound
cut is said; what nothing here can hold is said.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.daemon.demands import paths_observed
from agent.daemon.reserved import is_placeholder
from agent.daemon.reserving import Owner, reserve
from agent.daemon.spec import RunSpec
from agent.policy.grants import Grants
from agent.policy.model import Policy
from agent.policy.paths import below, covers, outermost
from agent.policy.protection import Protected, Reservation
from agent.session.plan import Hold

ENTRIES = 250_000
"""Directory entries that are looked at."""
HELD = 4_096
"""Mounts that are made: each costs the launch some 15 us, and the kernel's limit is 100,000 (sysctl fs.mount-max)."""
REPLACED = frozenset({"node_modules", "site-packages", ".cache"})
"""Directories that package managers delete and make anew, whole: a mount in one would break them. Not searched."""
_ELSEWHERE = frozenset({"/proc", "/sys", "/dev"})
_MAX_LINKS = 40  # MAXSYMLINKS, linux/namei.h


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found: protected `places`, `holders` that patterns lead through. `linked`: (device, inode) of
    protected files with further names. `cut`: where it ended before its time, None where it did not."""

    places: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    linked: frozenset[tuple[int, int]] = frozenset()
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Protection:
    """How protected places are held: `held` are the mounts, each parent before what is below; `reserved` the names
    among them that did not exist; `weak` says, in sentences, what nothing holds."""

    held: tuple[tuple[str, Hold], ...] = ()
    reserved: tuple[Reservation, ...] = ()
    weak: tuple[str, ...] = field(default=())


def search(roots: Sequence[str], protected: Protected, *, entries: int = ENTRIES) -> Found:
    """Every protected place in these trees. Never raises for what it cannot list: that is `cut`."""
    places = [root for root in roots if protected.rule_of(root) is not None]
    holders: list[str] = []
    linked: set[tuple[int, int]] = set()
    walk = _Walk([root for root in roots if root not in places], entries)
    for path, entry in walk:
        if not protected.speaks_of(entry.name):
            continue
        if protected.rule_of(path) is not None:
            places.append(path)
            walk.skip()
            linked.update(_with_more_names(path, walk))
        elif protected.holds(path):
            holders.append(path)
    return Found(tuple(places), tuple(holders), frozenset(linked), walk.cut)


def compile_protection(
    protected: Protected, roots: tuple[str, ...], workdir: str, *, entries: int = ENTRIES
) -> Protection:
    """What holds the protected places of `roots`, the resolved trees that the session may write. Makes nothing."""
    found = search(roots, protected, entries=entries)
    held: dict[str, Hold] = dict.fromkeys(found.holders, Hold.PIN)
    weak = [] if found.cut is None else [f"protected places were searched for up to {found.cut}, and not behind it"]
    places = [place for place in found.places if not is_placeholder(place)]
    for place in (*places, *_other_names(roots, found.linked, entries)):
        weak += _hold_place(place, roots, held)
    reserved = tuple(_reservations(protected, found, workdir, roots, held))
    for name in reserved:
        held[name.path] = Hold.RESERVE
    for path in list(held):
        for above in _ancestors(path, roots):
            held.setdefault(above, Hold.PIN)
    if len(held) > HELD:
        weak.append(f"{len(held)} mounts would be needed for the protected places, and {HELD} are made")
    ordered = sorted(held.items(), key=lambda item: item[0].split("/"))[:HELD]
    return Protection(tuple(ordered), reserved, tuple(weak))


def unheld(protection: Protection, why: str) -> Protection:
    """The same where no mount can be made: what was to be held is said to be held by nothing."""
    places = [path for path, how in protection.held if how is not Hold.PIN]
    if not places:
        return replace(protection, held=(), reserved=())
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    text = f"{places[0]}{more} is protected and held by nothing: {why}"
    return Protection(weak=(*protection.weak, text))


def protect(policy: Policy, spec: RunSpec, home: str, grants: Grants, workdir: str, *, mounts: bool) -> Protection:
    """How this run holds the policy's protected places; the placeholders are made. Raises OSError."""
    home = os.path.realpath(home)
    protected = Protected(policy, home)
    if not protected or paths_observed(policy):
        return Protection()
    roots = outermost(os.path.realpath(root) for root in grants.write)
    protection = compile_protection(protected, roots, os.path.realpath(workdir))
    if not mounts:
        return unheld(protection, "no mount namespace here")
    user = spec.session_user
    reserve(protection.reserved, home, spec.run_dir, Owner(user.uid, user.gid))
    return protection


class _Walk:
    """The entries of trees, breadth first: what lies near the top is looked at first."""

    def __init__(self, roots: Iterable[str], entries: int) -> None:
        self._pending = deque(roots)
        self._left = entries
        self._descend = True
        self.cut: str | None = None

    def skip(self) -> None:
        """Do not enter the directory that was yielded last."""
        self._descend = False

    def count(self) -> bool:
        """One more entry; False where there were too many."""
        self._left -= 1
        return self._left >= 0

    def __iter__(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        while self._pending:
            directory = self._pending.popleft()
            prefix = "" if directory == "/" else directory
            for entry in _listed(directory, self._unlisted):
                if not self.count():
                    self.cut = directory
                    return
                path = f"{prefix}/{entry.name}"
                self._descend = True
                yield path, entry
                if self._descend and path not in _ELSEWHERE and _is_entered(entry):
                    self._pending.append(path)

    def _unlisted(self, directory: str) -> None:
        self.cut = self.cut or directory


def _is_entered(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.name not in REPLACED


def _listed(directory: str, unlisted: Callable[[str], None]) -> list[os.DirEntry[str]]:
    """Its entries; none where it is gone, or is no directory any more, or is closed to this process's own user."""
    try:
        with os.scandir(directory) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        if os.geteuid() == 0:
            unlisted(directory)
        return []
    except OSError:
        unlisted(directory)
        return []


def _with_more_names(place: str, walk: _Walk) -> Iterator[tuple[int, int]]:
    """The regular files at or below a protected place that have names elsewhere."""
    pending = [place]
    while pending:
        path = pending.pop()
        if not walk.count():
            walk.cut = walk.cut or path
            return
        try:
            info = os.lstat(path)
        except OSError:
            continue  # gone since
        if stat.S_ISDIR(info.st_mode):
            pending += [entry.path for entry in _listed(path, walk._unlisted)]
        elif stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            yield info.st_dev, info.st_ino


def _other_names(roots: tuple[str, ...], linked: frozenset[tuple[int, int]], entries: int) -> list[str]:
    """All names of these files in the trees; it takes a second walk, made only where there are such files."""
    if not linked:
        return []
    inodes = {inode for _, inode in linked}
    names = []
    for path, entry in _Walk(roots, entries):
        if entry.inode() in inodes and entry.is_file(follow_symlinks=False):
            info = os.lstat(path)
            if (info.st_dev, info.st_ino) in linked:
                names.append(path)
    return names


def _hold_place(place: str, roots: tuple[str, ...], held: dict[str, Hold]) -> list[str]:
    """Put into `held` what keeps the place as it is; returns what nothing keeps."""
    for _ in range(_MAX_LINKS):
        if not Path(place).is_symlink():
            break
        held[place] = Hold.PIN
        parent, _, name = place.rpartition("/")
        target = os.path.join(os.path.realpath(parent or "/"), os.readlink(place))  # noqa: PTH115, PTH118
        above, _, name = os.path.normpath(target).rpartition("/")
        following = f"{os.path.realpath(above or '/')}/{name}" if name else "/"
        if covers(following, place):
            return [f"{place} is protected and leads to {following}, which holds it: nothing keeps that as it is"]
        if not any(covers(root, following) for root in roots):
            return []  # the session cannot write there
        if not os.path.lexists(following):
            return [f"{place} is protected and leads to {following}, which does not exist: it can be made"]
        place = following
    held[place] = Hold.READ_ONLY
    return []


def _reservations(
    protected: Protected, found: Found, workdir: str, roots: tuple[str, ...], held: dict[str, Hold]
) -> Iterator[Reservation]:
    wanted = [*protected.fixed()]
    if _in_use(workdir):
        wanted += protected.at_top(workdir)
    for holder in found.holders:
        if os.path.isdir(holder) and not os.path.islink(holder):  # noqa: PTH112, PTH114
            wanted += protected.inside(holder)
    for name in {entry.path: entry for entry in wanted}.values():
        known = any(covers(place, name.path) for place, how in held.items() if how is Hold.READ_ONLY)
        if not known and any(below(root, name.path) for root in roots) and _is_free(name.path):
            yield name


def _is_free(path: str) -> bool:
    return not os.path.lexists(path) or is_placeholder(path)


def _in_use(directory: str) -> bool:
    """Is there anything in it? A repository can be cloned into an empty one only."""
    try:
        with os.scandir(directory) as found:
            return next(found, None) is not None
    except OSError:
        return False


def _ancestors(path: str, roots: tuple[str, ...]) -> Iterator[str]:
    """The directories above `path` that lie below a granted root."""
    above = path.rpartition("/")[0]
    while above and any(below(root, above) for root in roots):
        yield above
        above = above.rpartition("/")[0]
