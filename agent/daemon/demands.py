"""The level each enforcement point really reaches in a run: what the machine offers, less what the policy does without,
less what no mechanism does yet.

A section in observe mode enforces nothing, whatever the machine could; a rule that the machine can't enforce is said
here and never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    protected = [rule for layer in policy.layers if layer.paths is not None for rule in layer.paths.protect]
    if protected and levels[Point.PATHS].level is Level.ENFORCED:
        levels[Point.PATHS] = Reached(
            Level.PARTIAL,
            f"paths.protect ({protected[0].where}) is decided by check and the tool hook, and enforced by no mechanism",
            "leave the protected places out of the write grants",
        )
    for point, given in sections.items():
        if observed(given):
            levels[point] = Reached(Level.OFF, "the policy only observes (mode: observe)", "mode: enforce")
    return levels


def paths_observed(policy: Policy) -> bool:
    """True where no layer enforces its paths section: the kernel must then not refuse either."""
    return observed([layer.paths for layer in policy.layers])


def observed(sections: Iterable[EgressSection | CommandSection | PathSection | None]) -> bool:
    """True where there are such sections and none enforces."""
    given = [section.mode for section in sections if section is not None]
    return bool(given) and all(mode is Mode.OBSERVE for mode in given)
