"""The effective path grants of all layers, for the kernel: what Landlock and the launcher are handed.

Rules kept here: a grant is here only where every layer gives it (trees are intersected), so that the kernel is never
wider than `decide`; what a kernel's tree grants cannot express (protected places, the agent's own files inside a
granted tree) is not here: the launcher hides the latter, `doctor` says what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.decide_paths import sections
from agent.policy.model import Layer, PathRule, PathSection, Policy
from agent.policy.paths import AGENT_FILES, DEVICES, PROC, below, covered, intersection, outermost
from agent.values import dataclass

__all__ = ["DEVICES", "Grants", "path_grants"]

_EVERYTHING = ("/",)


@dataclass(frozen=True, slots=True)
class Grants:
    """Roots of trees, sorted, none inside another one of the same list. `write` includes reading; `read` holds what is
    only read. The devices every session has are `DEVICES`. `agent_files`: the agent's places that lie inside a granted
    tree and must be hidden."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    agent_files: tuple[str, ...] = ()


def path_grants(policy: Policy, *, home: str, tmpdir: str) -> Grants:
    """What the session may read and write. `home` and `tmpdir` are its own directories, granted always."""
    write: tuple[str, ...] = _EVERYTHING
    read: tuple[str, ...] = _EVERYTHING
    layers = sections(policy)
    for _, section in layers:
        write = intersection(write, _writable(section))
        read = intersection(read, _readable(section))
    if not layers:
        write = read = ()
    write = outermost((*write, *(root for root in (home, tmpdir) if root and root != "/")))
    only_read = tuple(root for root in outermost((*read, PROC)) if not covered(write, root))
    everything = (*write, *only_read)
    places = dict.fromkeys((*AGENT_FILES, *policy.agent_files))
    return Grants(
        read=only_read,
        write=write,
        agent_files=tuple(place for place in places if any(below(root, place) or root == place for root in everything)),
    )


def workspace(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The trees that every layer lets the session write, sorted; its own home and TMPDIR left aside."""
    given = [layer.paths for layer in layers if layer.paths is not None and layer.paths.write_given]
    roots: tuple[str, ...] = _EVERYTHING if given else ()
    for section in given:
        roots = intersection(roots, _paths(section.write))
    return roots


def _paths(rules: tuple[PathRule, ...]) -> tuple[str, ...]:
    return tuple(rule.path for rule in rules)


def _writable(section: PathSection) -> tuple[str, ...]:
    return _paths(section.write) if section.write_given else _readable(section)


def _readable(section: PathSection) -> tuple[str, ...]:
    return (*_paths(section.read), *_paths(section.write)) if section.read_given else _EVERYTHING
