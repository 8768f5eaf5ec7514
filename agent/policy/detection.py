"""Sliding windows over the events of a session: when is a detector's threshold reached? Pure: it has no clock.

Rules kept here:
- The window of an occurrence at time t is what happened after t - within, t included: two that are exactly `within`
  apart are in no common window. The threshold is reached by the `count`-th occurrence, not by the one after it.
- An event that stands for several (`details.count`) counts as many, all at its own time.
- After a detection its detector rests for one window and then begins from nothing. What it sees meanwhile is counted,
  and told by the next detection: one flood is one detection a window, and no occurrence is in two of them.
- What is remembered is bounded by the threshold (of bytes: by `_BUCKETS`; there the oldest part of the window may be
  up to a 256th too long, so that a threshold is never missed).
- A clock that goes back counts as one that stands still.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Final, NamedTuple, Protocol

from agent.policy.decision import Severity
from agent.policy.globs import match_segment
from agent.policy.model import Policy
from agent.policy.model_detect import Detector, Sign
from agent.policy.operands import Fit
from agent.policy.path_classes import CLASSES, Places, class_fit
from agent.values import dataclass

_SECOND: Final = 1_000_000_000
_BUCKETS: Final = 256
_RANKS: Final = {str(severity): rank for rank, severity in enumerate(Severity)}


def severities(policy: Policy) -> dict[str, str]:
    """The detectors' names, each with its severity; the highest where several layers have one of that name."""
    found: dict[str, str] = {}
    for detector in policy.detectors:
        found[detector.id] = max(
            found.get(detector.id, ""), str(detector.severity), key=lambda name: _RANKS.get(name, -1)
        )
    return found


class Sighting(NamedTuple):
    """What a detector looks at of one event. `rule`, `severity`: empty where it has none."""

    event: str
    result: str
    resource: str
    rule: str = ""
    severity: str = ""
    many: int = 1


@dataclass(frozen=True, slots=True)
class Detection:
    """A threshold that was reached. `occurrences`: events, different resources or bytes in the window; `meanwhile`:
    what was seen while the detector rested after its last detection."""

    detector: Detector
    occurrences: int
    meanwhile: int


class Watch:
    """All detectors of a policy, at work. `home`: the session's. Several threads need a lock of the caller's.

    `follow` another policy keeps what detectors that stayed the same have seen.
    """

    def __init__(self, policy: Policy, home: str) -> None:
        self._home = home
        self._running: dict[Detector, _Running] = {}
        self._by_event: dict[str, list[_Running]] = {}
        self._uploads: list[_Running] = []
        self.follow(policy)

    def follow(self, policy: Policy) -> None:
        """From now on by the detectors of this policy."""
        tags = _rules_by_tag(policy)
        places = Places(self._home, policy.workspace)
        kept = self._running
        self._running, self._by_event, self._uploads = {}, {}, []
        for detector in policy.detectors:
            running = self._running[detector] = kept.get(detector) or _Running(detector)
            running.looks = [_Look(sign, _tagged(sign, tags), places) for sign in detector.when]
            for event in dict.fromkeys(event for sign in detector.when for event in sign.events):
                self._by_event.setdefault(event, []).append(running)
            if detector.upload:
                self._uploads.append(running)

    def watches(self, event: str) -> bool:
        """Does any detector look at events of this type?"""
        return event in self._by_event

    def saw(self, sighting: Sighting, now_ns: int) -> list[Detection]:
        """Take one event at that time; the detections that it completes."""
        found = []
        for running in self._by_event.get(sighting.event, ()):
            if any(look.fits(sighting) for look in running.looks):
                detection = running.add(now_ns, sighting.resource, sighting.many)
                if detection is not None:
                    found.append(detection)
        return found

    def uploaded(self, size: int, now_ns: int) -> list[Detection]:
        """So many bytes went to allowed destinations since the last call."""
        found = [running.add(now_ns, "", size) for running in self._uploads] if size > 0 else []
        return [detection for detection in found if detection is not None]


class _Look:
    """One sign, with what its tags and classes mean under the policy in force."""

    def __init__(self, sign: Sign, tagged: frozenset[str], places: Places) -> None:
        self._events = frozenset(sign.events)
        self._results = frozenset(map(str, sign.results))
        self._least = -1 if sign.severity is None else _RANKS[sign.severity]
        self._tagged = tagged if sign.tags else None
        self._rules = frozenset(rule for rule in sign.rules if "*" not in rule)
        self._globs = tuple(rule for rule in sign.rules if "*" in rule)
        self._resources = sign.resources
        self._places = places

    def fits(self, seen: Sighting) -> bool:
        if seen.event not in self._events or (self._results and seen.result not in self._results):
            return False
        if self._least > _RANKS.get(seen.severity, -1):
            return False
        if self._tagged is not None and seen.rule not in self._tagged:
            return False
        return self._of_rule(seen.rule) and self._on(seen.resource)

    def _of_rule(self, rule: str) -> bool:
        if not self._rules and not self._globs:
            return True
        return rule in self._rules or any(match_segment(glob, rule) for glob in self._globs)

    def _on(self, resource: str) -> bool:
        return not self._resources or any(self._names(shape, resource) for shape in self._resources)

    def _names(self, shape: str, resource: str) -> bool:
        if shape not in CLASSES:
            return match_segment(shape, resource)
        if not resource.startswith("/"):
            return False
        fit = class_fit(shape, resource, cwd="/", places=self._places, glob=False, recursive=False)
        return fit is Fit.YES


class _Window(Protocol):
    def add(self, at: int, resource: str, many: int, since: int) -> int:
        """Take `many` at the time `at`; how many there are after `since`."""


class _Running:
    """One detector at work."""

    def __init__(self, detector: Detector) -> None:
        self.looks: list[_Look] = []
        self._detector = detector
        self._within = detector.within * _SECOND
        self._threshold = detector.upload or detector.count
        self._window = self._fresh()
        self._now: int | None = None
        self._rests_until: int | None = None
        self._meanwhile = 0

    def add(self, now: int, resource: str, many: int) -> Detection | None:
        if self._now is not None:
            now = max(now, self._now)
        self._now = now
        if self._rests_until is not None and now < self._rests_until:
            self._meanwhile += many
            return None
        total = self._window.add(now, resource, many, now - self._within)
        if total < self._threshold:
            return None
        detection = Detection(self._detector, total, self._meanwhile)
        self._window, self._meanwhile, self._rests_until = self._fresh(), 0, now + self._within
        return detection

    def _fresh(self) -> _Window:
        if self._detector.distinct:
            return _Distinct()
        return _Sum(self._within // _BUCKETS if self._detector.upload else 0)


class _Sum:
    """Amounts by time; those within `step` of the one before are one entry, at the later time."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._entries: deque[tuple[int, int, int]] = deque()  # begun, last, amount
        self._total = 0

    def add(self, at: int, resource: str, many: int, since: int) -> int:
        entries = self._entries
        while entries and entries[0][1] <= since:
            self._total -= entries.popleft()[2]
        if entries and at - entries[-1][0] <= self._step:
            begun, _, amount = entries.pop()
            entries.append((begun, at, amount + many))
        else:
            entries.append((at, at, many))
        self._total += many
        return self._total


class _Distinct:
    """Resources by the time they were last seen, oldest first."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def add(self, at: int, resource: str, many: int, since: int) -> int:
        seen = self._seen
        seen.pop(resource, None)
        for name in list(takewhile(lambda name: seen[name] <= since, seen)):
            del seen[name]
        seen[resource] = at
        return len(seen)


def _rules_by_tag(policy: Policy) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for layer in policy.layers:
        for rule in () if layer.commands is None else layer.commands.deny:
            for tag in rule.tags:
                found.setdefault(tag, set()).add(rule.id)
    return found


def _tagged(sign: Sign, by_tag: dict[str, set[str]]) -> frozenset[str]:
    return frozenset(rule for tag in sign.tags for rule in by_tag.get(tag, ()))
