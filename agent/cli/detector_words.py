"""How `policy explain` words a detector."""

from __future__ import annotations

from agent.policy.model_detect import Detector, Sign


def of_detector(detector: Detector) -> str:
    """One line: what is counted, the threshold, what answers it."""
    if detector.upload:
        counted = f"{detector.upload} bytes sent"
    else:
        what = "different resources of" if detector.distinct else "times"
        counted = f"{detector.count} {what} " + ", or ".join(_sign(sign) for sign in detector.when)
    return f"{detector.id}: {counted} within {detector.within} s ({detector.severity}): {', '.join(detector.respond)}"


def _sign(sign: Sign) -> str:
    parts = [" | ".join(sign.events)]
    if sign.results:
        parts.append(" | ".join(sign.results))
    if sign.severity is not None:
        parts.append(f"at least {sign.severity}")
    for name, given in (("rule", sign.rules), ("tag", sign.tags), ("on", sign.resources)):
        if given:
            parts.append(f"{name} {' | '.join(given)}")
    return " ".join(parts)
