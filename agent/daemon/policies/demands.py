"""The level each enforcement point really reaches in a run: what the machine offers, less what the policy does without,
less the protected places that nothing here holds.

A section in observe mode enforces nothing, whatever the machine could; a rule that the machine can't enforce is said
here and never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.policy.model import CommandSection, EgressSection, Mode, PathSection, Policy
from agent.session.levels import Level, Offer, Point, Reached, reached


def run_levels(policy: Policy, offer: Offer) -> dict[Point, Reached]:
    """Point -> level for this policy on this machine."""
    levels = reached(offer)
    sections: dict[Point, list[EgressSection | CommandSection | PathSection | None]] = {
        Point.EGRESS: [layer.egress for layer in policy.layers],
        Point.EXEC: [layer.commands for layer in policy.layers],
        Point.PATHS: [layer.paths for layer in policy.layers],
    }
    for point, given in sections.items():
        if observed(given):
            levels[point] = Reached(Level.OFF, "the policy only observes (mode: observe)", "mode: enforce")
    return levels


def with_protection(found: Reached, weak: Sequence[str]) -> Reached:
    """The level of the path guard where protected places are held by nothing: `weak` says which."""
    if not weak or found.level is Level.OFF:
        return found
    why = "; ".join(weak) if found.level is Level.ENFORCED else "; ".join([found.why, *weak])
    level = Level.PARTIAL if found.level is Level.ENFORCED else found.level
    return Reached(level, why, "leave the place out of the write grants, or out of paths.protect")


def paths_observed(policy: Policy) -> bool:
    """True where no layer enforces its paths section: the kernel must then not refuse either."""
    return observed([layer.paths for layer in policy.layers])


def observed(sections: Iterable[EgressSection | CommandSection | PathSection | None]) -> bool:
    """True where there are such sections and none enforces."""
    given = [section.mode for section in sections if section is not None]
    return bool(given) and all(mode is Mode.OBSERVE for mode in given)
