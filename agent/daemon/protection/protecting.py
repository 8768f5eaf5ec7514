"""Protected places of this machine: found in the trees that the session may write, and compiled to what holds them.

A place that is there is mounted read-only over itself; the directories above it, up to the granted root, are mounted
over themselves (pinned), so that none is renamed away with it, and so are symlinks that lead to one of them; a symlink
of a protected name is pinned and what it leads to is read-only; a file with several names is read-only under each of
them. Names that do not exist yet are reserved (agent.daemon.protection.reserving) where they are known: in the home, at
the top of a working directory that is in use, and wherever the directory that a pattern leads through is there already.

Rules kept here: nothing that the session could have put there is followed; the search is bounded, and what the bound
cut is said; what nothing here can hold is said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from agent.daemon.base.places import closed
from agent.daemon.base.spec import RunSpec, User
from agent.daemon.policies.demands import paths_observed
from agent.daemon.protection.owning import own, sticky_holds
from agent.daemon.protection.reserved import is_placeholder
from agent.daemon.protection.reserving import Owner, reserve
from agent.daemon.protection.searching import Bounds, Found, Memory, other_names, search
from agent.linux import exact
from agent.linux.openat2 import MAX_LINKS
from agent.policy.grants import Grants
from agent.policy.model import Policy
from agent.policy.paths import below, covers, outermost
from agent.policy.protection import Protected, Reservation
from agent.policy.words import shown
from agent.session.plan import Hold
from agent.values import dataclass, field, replace

HELD = 4_096
"""Mounts that are made: each costs the launch some 15 us, and the kernel's limit is 100,000 (sysctl fs.mount-max)."""
SHOWN = 200
NO_MOUNTS = "no mount namespace here"


@dataclass(frozen=True, slots=True)
class Protection:
    """How protected places are held: `held` are the mounts, each parent before what is below; `owned` is held by
    ownership instead (agent.daemon.protection.owning); `reserved` are the names among them that did not exist; `weak`
    says, in sentences, what nothing holds."""

    held: tuple[tuple[str, Hold], ...] = ()
    owned: tuple[tuple[str, Hold], ...] = ()
    reserved: tuple[Reservation, ...] = ()
    weak: tuple[str, ...] = field(default=())

    @property
    def places(self) -> tuple[tuple[str, Hold], ...]:
        """Everything that is held, by either means."""
        return (*self.held, *self.owned)


def compile_protection(
    protected: Protected,
    roots: tuple[str, ...],
    workdir: str,
    bounds: Bounds,
) -> Protection:
    """What holds the protected places of `roots`, the resolved trees that the session may write. Makes nothing."""
    return compile_found(search(roots, protected, bounds), protected, roots, workdir, bounds)


def compile_found(
    found: Found, protected: Protected, roots: tuple[str, ...], workdir: str, bounds: Bounds
) -> Protection:
    """The same of what a search found."""
    held: dict[str, Hold] = dict.fromkeys(found.holders, Hold.PIN)
    weak = (
        []
        if found.cut is None
        else [f"protected places were not looked for, or not found, behind {shown_place(found.cut)}"]
    )
    places = [place for place in found.places if not is_placeholder(place)]
    for place in (*places, *other_names(roots, found.linked, bounds)):
        weak += _hold_place(place, roots, (*roots, protected.home, workdir), held)
    reserved = tuple(_reservations(protected, found, workdir, roots, held))
    for name in reserved:
        held[name.path] = Hold.RESERVE
    _pin_above(held, roots)
    before_links = frozenset(held)
    identities = {identity for path in held if not os.path.islink(path) and (identity := _identity(path)) is not None}  # noqa: PTH114
    for link in found.links:  # another way to a place: what replaces it would be taken for the place
        if _identity(link) in identities:
            held.setdefault(link, Hold.PIN)
    _pin_above(held, roots)
    if len(held) > HELD:
        weak.append(f"{len(held)} mounts would be needed for the protected places, and {HELD} are made")
    chosen = dict(_ordered(held, (workdir, protected.home), before_links))
    reserved = tuple(name for name in reserved if name.path in chosen)
    return Protection(tuple(chosen.items()), reserved=reserved, weak=tuple(weak))


def _ordered(held: dict[str, Hold], near: tuple[str, ...], places: frozenset[str]) -> tuple[tuple[str, Hold], ...]:
    """Each parent before what is below. Where there are too many: `places` before the links that lead to them, those of
    the directories `near` first, then those near the top, with the directories above them; else an earlier session
    could crowd them out with names of its own."""

    def rank(path: str) -> tuple[bool, bool, int, str]:
        far = not any(covers(place, path) or covers(path, place) for place in near)
        return path not in places, far, path.count("/"), path

    chosen = sorted(held, key=rank)[:HELD]
    return tuple((path, held[path]) for path in sorted(chosen, key=lambda path: path.split("/")))


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode of what the path leads to, None where it leads to nothing."""
    try:
        info = os.stat(path)  # noqa: PTH116  (of every symlink of the trees)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _pin_above(held: dict[str, Hold], roots: tuple[str, ...]) -> None:
    for path in list(held):
        for above in _ancestors(path, roots):
            held.setdefault(above, Hold.PIN)


def unheld(protection: Protection, why: str) -> Protection:
    """The same where no mount can be made: what was to be held is said to be held by nothing."""
    places = [path for path, how in protection.held if how is not Hold.PIN]
    if not places:
        return replace(protection, held=(), reserved=())
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    text = f"{shown_place(places[0])}{more} is protected and held by nothing: {why}"
    return Protection(weak=(*protection.weak, text))


class Lookout:
    """Looks for what a run is to hold, as often as it is asked to. Where a link of the session's account leads to a
    grant by now it raises exact.Planted, as every method; OSError."""

    def __init__(self, policy: Policy, spec: RunSpec, home: str, grants: Grants, workdir: str, *, mounts: bool) -> None:
        self._home = os.path.realpath(home)
        self._protected = Protected(policy, self._home)
        self._spec = spec
        self._grants = grants
        self._workdir = os.path.realpath(workdir)
        self._mounts = mounts
        self._nothing = not self._protected or paths_observed(policy)
        self._memory: Memory = {}
        self._seen: tuple[tuple[str, ...], Found] | None = None
        self._protection = Protection()

    def look(self) -> Protection:
        """How this run holds the policy's protected places as they are now; the placeholders are made. The same object
        as before where nothing has changed."""
        if self._nothing:
            return self._protection
        user = self._spec.session_user
        roots = outermost(root for root in map(partial(_resolved, user=user), self._grants.write) if root is not None)
        bounds = bounds_of(user.uid, user.gid)
        found = search(roots, self._protected, bounds, self._memory)
        places = tuple(place for place in found.places if not is_placeholder(place))
        known = roots, replace(found, places=places, anew=bool(found.linked) and found.anew)
        if known != self._seen or known[1].anew:
            self._seen = known
            self._protection = self._made(compile_found(found, self._protected, roots, self._workdir, bounds))
        return self._protection

    def _made(self, protection: Protection) -> Protection:
        if not self._mounts:
            return _owned(protection, self._home, self._spec)
        user = self._spec.session_user
        lost = reserve(protection.reserved, self._home, self._spec.run_dir, Owner(user.uid, user.gid))
        return _without(protection, lost)


def _resolved(root: str, user: User) -> str | None:
    """Where a grant leads, None where nothing is there."""
    way = exact.found(root, user.uid if os.geteuid() == 0 else None)
    if way is None:
        return None
    os.close(way.place)
    return way.real


def _owned(protection: Protection, home: str, spec: RunSpec) -> Protection:
    """Without mounts: by ownership in the home, where the session has a uid of its own; by nothing elsewhere."""
    if spec.egress_user is None:
        return unheld(protection, f"{NO_MOUNTS}, and one user for all")
    if not sticky_holds(f"{spec.run_dir}/private", spec.session_user):
        return unheld(protection, f"{NO_MOUNTS}, and a sticky directory does not keep root's files here")
    names = tuple(name for name in protection.reserved if covers(home, name.path))
    user = spec.session_user
    lost = reserve(names, home, spec.run_dir, Owner(user.uid, user.gid))
    kept = _without(replace(protection, reserved=names), lost)
    owned = own(kept.held, home, spec.run_dir, user)
    rest = unheld(replace(kept, held=tuple(entry for entry in kept.held if entry not in owned)), NO_MOUNTS)
    return Protection(owned=owned, reserved=kept.reserved, weak=rest.weak)


def bounds_of(uid: int, gid: int) -> Bounds:
    """Of the search for a session of this account: what file permissions keep from it is left aside."""

    def reached(directory: str) -> bool:
        try:
            return not closed(directory, uid, gid)
        except OSError:  # gone, or its path too long: nothing says that it cannot be reached
            return True

    return Bounds(reached)


def _without(protection: Protection, lost: tuple[str, ...]) -> Protection:
    """The same without reserved names that could not be had: what took one meanwhile is said to be held by nothing."""
    taken = [path for path in lost if os.path.lexists(path)]
    said = (f"{shown_place(path)} is protected, and was made while the session was prepared" for path in taken)
    return replace(
        protection,
        held=tuple((path, how) for path, how in protection.held if path not in lost),
        reserved=tuple(name for name in protection.reserved if name.path not in lost),
        weak=(*protection.weak, *said),
    )


def shown_place(path: str) -> str:
    """A path for a sentence: the session may have chosen the name."""
    text = shown(path)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _hold_place(place: str, roots: tuple[str, ...], worked_in: tuple[str, ...], held: dict[str, Hold]) -> list[str]:
    """Put into `held` what keeps the place as it is; returns what nothing keeps. No symlink makes a directory that the
    session works in read-only: an earlier session may have made it."""
    first = place
    for _ in range(MAX_LINKS):
        if not Path(place).is_symlink():
            break
        held[place] = Hold.PIN
        parent, _, name = place.rpartition("/")
        target = os.path.join(os.path.realpath(parent or "/"), os.readlink(place))  # noqa: PTH115, PTH118
        above, _, name = os.path.normpath(target).rpartition("/")
        following = f"{os.path.realpath(above or '/')}/{name}" if name else "/"
        if any(covers(following, needed) for needed in (place, *worked_in)):
            return [f"{shown_place(first)} is protected and leads to a directory that the session works in"]
        if not any(covers(root, following) for root in roots):
            return []  # the session cannot write there
        if not os.path.lexists(following):
            return [f"{shown_place(first)} is protected and leads to what does not exist, and can be made"]
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
    read_only = {place for place, how in held.items() if how is Hold.READ_ONLY}
    for name in {entry.path: entry for entry in wanted}.values():
        above = (*_ancestors(name.path, roots), *(root for root in roots if covers(root, name.path)))
        known = not read_only.isdisjoint((name.path, *above))
        if not known and any(below(root, name.path) for root in roots) and _is_free(name.path):
            yield name


def _is_free(path: str) -> bool:
    return not os.path.lexists(path) or is_placeholder(path)


def _in_use(directory: str) -> bool:
    """Is there anything in it? A repository can be cloned into an empty one only. What is sticky is nobody's work tree,
    but everybody's (/tmp)."""
    try:
        if Path(directory).stat().st_mode & stat.S_ISVTX:
            return False
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
