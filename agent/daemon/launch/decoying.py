"""Where a session's decoys lie: in the place of the sensitive files that it may not read (`paths.audit: reads`).

A decoy lies where nothing could be read before: at the first part of the way to a sensitive name that no grant reaches
(there the session's view has an empty directory that nobody enters), that a mount hides, or that file permissions close
to the session's account. So it opens nothing; what had no name below it is not found any more (ENOENT), where it was
refused (EACCES). What lies in a tree that the session may write is left alone, but for the agent's own.

Rules kept here: whether file permissions close a place is asked of the kernel, with the account's own identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from agent.daemon.base.spec import RunSpec
from agent.daemon.launch.planning import Ground
from agent.daemon.policies.demands import paths_observed
from agent.linux.process import session_eyes
from agent.policy.model import Policy
from agent.policy.paths import below, covers
from agent.policy.sensitive import sensitive
from agent.session.plan import Decoy, Plan
from agent.values import dataclass, replace

HOMES = "/home"
ROOTS_HOME = "/root"
MOST_HOMES = 64
MOST_FILES = 256


@dataclass(frozen=True, slots=True)
class Sight:
    """What a session may see. `seen`: the granted trees, resolved; `hidden`: what mounts cover in them; `closed`:
    whether file permissions keep its account from reading a place (or, asked with True, from looking into it)."""

    seen: tuple[str, ...]
    hidden: frozenset[str]
    closed: Callable[[str, bool], bool]

    def obstacle(self, path: str) -> str | None:
        """Where the way to `path` ends for the session; None where it may be read, or nothing is known to keep it."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            here = "/" + "/".join(parts[:depth])
            if here in self.hidden:
                return here
            if any(below(here, root) for root in self.seen):
                continue  # on the way to what is granted
            if not any(covers(root, here) for root in self.seen) or self.closed(here, depth < len(parts)):
                return here if os.path.lexists(here) else None
        return None


def place_decoys(names: Iterable[str], sight: Sight) -> tuple[Decoy, ...]:
    """Where decoys lie for these names (directories end in ``/``), and what is shown in each place."""
    found: dict[str, set[str]] = {}
    for name in names:
        directory, _, last = name.rstrip("/").rpartition("/")
        path = f"{os.path.realpath(directory or '/').rstrip('/')}/{last}"
        place = sight.obstacle(path)
        if place is not None:
            found.setdefault(place, set()).add(path[len(place) + 1 :] + ("/" if name.endswith("/") else ""))
    return tuple((place, _shown(place, below)) for place, below in sorted(found.items()))


def _shown(place: str, names: set[str]) -> tuple[str, ...]:
    """Nothing for a file; what lies below a directory, itself as the empty name."""
    if names == {""} and not Path(place).is_dir():
        return ()
    return tuple(sorted({name.removeprefix("/") for name in names}))


def sight_of(granted: Iterable[str], hidden: Iterable[str], uid: int | None, gid: int | None) -> Sight:
    """Of a session with these trees, and with this account (None: the agent's own)."""
    seen = {os.path.realpath(path) for path in granted}
    eyes = session_eyes(uid, gid)

    def closed(path: str, through: bool) -> bool:
        with eyes:
            return os.path.lexists(path) and not os.access(path, os.X_OK if through else os.R_OK, effective_ids=True)

    return Sight(tuple(sorted(seen)), frozenset(hidden), closed)


def others_homes(home: str) -> Iterator[str]:
    """Those of the machine's other accounts."""
    yield ROOTS_HOME
    if Path(HOMES).is_dir():
        found = sorted(os.listdir(HOMES))[:MOST_HOMES]  # noqa: PTH208
        yield from (f"{HOMES}/{name}" for name in found if not covers(f"{HOMES}/{name}", home))


def sensitive_names(policy: Policy, writable: Iterable[str], home: str) -> tuple[str, ...]:
    """The names that are sensitive for a session that lives in `home`, outside of what it may write."""
    trees = [os.path.realpath(root) for root in writable]
    named = (name for path in policy.sensitive for name in _with_what_is_there(path))
    known = sensitive(others_homes(os.path.realpath(home)))
    return tuple(name for name in (*known, *named) if not any(covers(tree, name.rstrip("/")) for tree in trees))


def _with_what_is_there(path: str) -> Iterator[str]:
    """The name of a file, or those of a directory and of what is in it now, no symlink followed."""
    if not Path(path).is_dir():
        yield path
        return
    yield f"{path}/"
    yield from islice(_inside(path), MOST_FILES)


def _inside(directory: str) -> Iterator[str]:
    for at, directories, files in os.walk(directory):
        yield from (f"{at}/{name}" for name in sorted(files))
        yield from (f"{at}/{name}/" for name in sorted(directories))


def with_decoys(plan: Plan, spec: RunSpec, ground: Ground) -> Plan:
    """The same plan with the decoys that the policy asks for, where this machine can ask before they are opened."""
    if not (ground.policy.audits_reads and ground.offer.reads) or paths_observed(ground.policy):
        return plan
    private = (path for path in plan.proofs.private if path != ground.places.private)  # out of sight as a whole
    own = (name for path in private for name in _with_what_is_there(path))
    names = (*sensitive_names(ground.policy, plan.write, ground.places.home), *own)
    sight = sight_of((*plan.read, *plan.write, *plan.devices), plan.hide, plan.uid, plan.gid)
    return replace(plan, decoys=place_decoys(names, sight), decoys_at=ground.places.private)
