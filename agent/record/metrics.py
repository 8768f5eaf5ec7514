"""The counters: the contract's three and the agent's own, kept exactly, shown through prometheus-client.

Rules:
- Counts live here as plain numbers under one lock; `registry()` wraps them in a prometheus-client registry of its
  own. So the library (over 100 ms to import) is not needed until the first push, and no increment waits for it.
- Every label value comes from a closed set or from the policy, never from traffic: what is not in the set is "other"
  (reasons, secret names) or a programming error (points, levels).
- `count` is called by the ledger alone, once per accepted event: the counters are the sum of the log's lines. Events of
  observe mode (`details.enforced` false, result success) are no denials.
- No `_created` series: they double the series and mean nothing to a Pushgateway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent.record.event import DENIALS, AuthFailure, Event, EventType, Integrity, Json, Result
from agent.record.timings import BUCKETS, Timings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

POINTS = ("egress", "exec", "paths", "agent")
"""The enforcement points that have a level."""
LEVELS = ("enforced", "partial", "advisory", "off")
RESTARTABLE = ("guard", "egress")
"""The agent's processes that are started again while the session goes on."""
DECISION_POINTS = ("egress", "exec", "hook")
"""Where decisions are timed."""
LOCKDOWN_MEASURES = ("cut", "freeze", "kill")
"""What a lockdown may do (`agent.policy.lockdown.Measure`)."""
SECRET_ACTIONS = {
    EventType.SECRET_ACCESS: "access",
    EventType.SECRET_INJECT: "inject",
    EventType.SECRET_ROTATE: "rotate",
}
NO_DETECTORS: Mapping[str, str] = MappingProxyType({})
_OTHER = "other"
_URGENT = (
    DENIALS
    | SECRET_ACTIONS.keys()
    | {EventType.AUTH_FAILURE, EventType.AGENT_DEGRADED, EventType.AGENT_RECOVERED, EventType.AUDIT_GAP}
    | {EventType.AGENT_LOCKDOWN, EventType.INTEGRITY_CHANGED, EventType.DETECTION}
)


_COUNTS = frozenset(
    {
        "_denied",
        "_auth_failures",
        "_secrets",
        "_detections",
        "_integrity",
        "_lockdowns",
        "_bytes",
        "_connections",
        "_lost",
        "_push_failures",
        "_restarts",
        "_timings",
    }
)

type Numbers = dict[str, Any]


class Metrics:
    """All numbers of one agent process. Every method may be called from any thread; none blocks for long."""

    def __init__(self, *, version: str, policy_digest: str = "", secret_names: Collection[str] = ()) -> None:
        self._lock = threading.Lock()
        self._version = version
        self._policy_digest = policy_digest
        self._secret_names = frozenset(secret_names)
        self._denied = dict.fromkeys((event_type.value for event_type in sorted(DENIALS)), 0)
        self._auth_failures = dict.fromkeys((reason.value for reason in AuthFailure), 0)
        self._secrets = {(name, action): 0 for name in (_OTHER, *secret_names) for action in SECRET_ACTIONS.values()}
        self._detections = {_OTHER: ("high", 0)}
        self._integrity = dict.fromkeys((kind.value for kind in Integrity), 0)
        self._lockdowns = dict.fromkeys(LOCKDOWN_MEASURES, 0)
        self._levels = dict.fromkeys(POINTS, "off")
        self._bytes = {"up": 0, "down": 0}
        self._connections = 0
        self._sequence = 0
        self._lost = 0
        self._push_failures = 0
        self._restarts = dict.fromkeys(RESTARTABLE, 0)
        self._ended = False
        self._timings = {point: Timings() for point in DECISION_POINTS}
        self._watchers: list[Callable[[], None]] = []
        self._registry: CollectorRegistry | None = None

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` (which must return at once) after each security event."""
        self._watchers.append(wake)

    def count(self, event: Event) -> None:
        """Take one accepted event into the counters."""
        with self._lock:
            self._count(event)
        if event.type in _URGENT:
            for wake in self._watchers:
                wake()

    def _count(self, event: Event) -> None:
        if event.type in DENIALS:
            if event.result is Result.DENIED and event.details.get("enforced") is not False:
                self._denied[event.type.value] += event.count
        elif event.type is EventType.AUTH_FAILURE:
            reason = event.details.get("reason")
            known = isinstance(reason, str) and reason in self._auth_failures
            self._auth_failures[str(reason) if known else AuthFailure.OTHER.value] += event.count
        elif event.type is EventType.AGENT_LOCKDOWN:
            measures = event.details.get("measures")
            for measure in measures if isinstance(measures, list) else ():
                if isinstance(measure, str) and measure in self._lockdowns:
                    self._lockdowns[measure] += event.count
        elif event.type in SECRET_ACTIONS and event.result is Result.SUCCESS:
            name = event.details.get("secret_name", event.resource)
            label = name if isinstance(name, str) and name in self._secret_names else _OTHER
            key = (label, SECRET_ACTIONS[event.type])
            self._secrets[key] = self._secrets.get(key, 0) + event.count
        elif event.type is EventType.DETECTION:
            detector = event.details.get("detector")
            known = isinstance(detector, str) and detector in self._detections
            name = str(detector) if known else _OTHER
            severity, value = self._detections[name]
            self._detections[name] = (severity, value + 1)
        elif event.type is EventType.INTEGRITY_CHANGED:
            kind = event.details.get("kind")
            if isinstance(kind, str) and kind in self._integrity:
                self._integrity[kind] += event.count

    def begin_anew(self) -> None:
        """All that is counted is at zero again: a new boot, whose instance shows what happened in it."""
        with self._lock:
            by_name = (self._denied, self._auth_failures, self._integrity, self._lockdowns, self._bytes, self._restarts)
            for table in by_name:
                table.update(dict.fromkeys(table, 0))
            self._secrets.update(dict.fromkeys(self._secrets, 0))
            self._detections = {name: (severity, 0) for name, (severity, _) in self._detections.items()}
            self._connections = self._sequence = self._lost = self._push_failures = 0
            self._timings = {point: Timings() for point in DECISION_POINTS}

    def lost(self, occurrences: int) -> None:
        """Events that could not be recorded."""
        with self._lock:
            self._lost += occurrences
        for wake in self._watchers:
            wake()

    def set_sequence(self, seq: int) -> None:
        """`seq` of the last event that is on disk."""
        with self._lock:
            self._sequence = seq

    def set_policy(
        self, digest: str, secret_names: Collection[str] = (), detectors: Mapping[str, str] = NO_DETECTORS
    ) -> None:
        """The policy in force, the names of its secrets and of its detectors, each with its severity (names once
        counted stay)."""
        with self._lock:
            self._policy_digest = digest
            self._secret_names |= frozenset(secret_names)
            for name in secret_names:
                for action in SECRET_ACTIONS.values():
                    self._secrets.setdefault((name, action), 0)
            for name, severity in detectors.items():
                self._detections[name] = (severity, self._detections.get(name, ("", 0))[1])

    def set_level(self, point: str, level: str) -> None:
        """What an enforcement point reaches on this machine. Raises ValueError outside `POINTS` and `LEVELS`."""
        if point not in POINTS or level not in LEVELS:
            raise ValueError(f"no such enforcement point or level: {point} {level}")
        with self._lock:
            self._levels[point] = level

    def observe_decision(self, point: str, seconds: float) -> None:
        """How long one decision took. Raises ValueError outside `DECISION_POINTS`."""
        if point not in DECISION_POINTS:
            raise ValueError(f"no such decision point: {point}")
        with self._lock:
            self._timings[point].observe(seconds)

    def add_decisions(self, point: str, counts: list[int], seconds: float) -> None:
        """Decisions that another process timed (`Timings.take`). Raises ValueError for another point or shape."""
        if point not in DECISION_POINTS:
            raise ValueError(f"no such decision point: {point}")
        with self._lock:
            self._timings[point].add(counts, seconds)

    def add_egress_bytes(self, up: int, down: int, connections: int = 0) -> None:
        """Bytes that went out and came in, and connections made, since the last call."""
        with self._lock:
            self._bytes["up"] += up
            self._bytes["down"] += down
            self._connections += connections

    def restarted(self, process: str) -> None:
        """A process of the agent's died and was replaced. Raises KeyError outside `RESTARTABLE`."""
        with self._lock:
            self._restarts[process] += 1

    def numbers(self) -> Numbers:
        """All counts, for the metrics of another process that goes on with them."""
        with self._lock:
            return deepcopy({name: getattr(self, name) for name in _COUNTS})

    def resume(self, numbers: Numbers) -> None:
        """Go on from these. Levels and policy are not among them."""
        with self._lock:
            for name in _COUNTS & numbers.keys():
                setattr(self, name, numbers[name])

    def push_failed(self) -> None:
        with self._lock:
            self._push_failures += 1

    def end_session(self) -> None:
        """From here on `parhelia_agent_session_ended` is 1."""
        with self._lock:
            self._ended = True

    def denied_total(self) -> dict[str, int]:
        """Denials so far, by event type (what `parhelia_security_denied_total` shows)."""
        with self._lock:
            return dict(self._denied)

    def reading(self) -> dict[str, Json]:
        """What a person asks first, at one moment: denials, refused callers, levels, traffic."""
        with self._lock:
            return {
                "levels": {**self._levels},
                "denials": {**self._denied},
                "auth_failures": {**self._auth_failures},
                "egress": {
                    "bytes_up": self._bytes["up"],
                    "bytes_down": self._bytes["down"],
                    "connections": self._connections,
                },
                "restarts": {**self._restarts},
                "lost_events": self._lost,
                "push_failures": self._push_failures,
            }

    def registry(self) -> CollectorRegistry:
        """The registry that shows these numbers; imports prometheus-client at the first call."""
        from prometheus_client import CollectorRegistry, disable_created_metrics

        if self._registry is None:
            disable_created_metrics()  # type: ignore[no-untyped-call]
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Collector(self))
            self._registry = registry
        return self._registry

    def render(self) -> bytes:
        """The whole registry in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry())

    def families(self) -> list[Metric]:
        """One consistent reading of every metric, as prometheus-client families."""
        with self._lock:
            return [*self._security_families(), *self._agent_families(), self._decision_family()]

    def _security_families(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        denied = CounterMetricFamily("parhelia_security_denied", "Denials, by event type.", labels=["event_type"])
        for event_type, value in self._denied.items():
            denied.add_metric([event_type], value)
        failures = CounterMetricFamily("parhelia_auth_failures", "Callers refused, by reason.", labels=["reason"])
        for reason, value in self._auth_failures.items():
            failures.add_metric([reason], value)
        secrets = CounterMetricFamily(
            "parhelia_secrets_accessed", "Secrets used, by name and action.", labels=["secret_name", "action"]
        )
        for (name, action), value in sorted(self._secrets.items()):
            secrets.add_metric([name, action], value)
        detections = CounterMetricFamily(
            "parhelia_agent_detections", "Thresholds reached, by detector.", labels=["detector", "severity"]
        )
        for name, (severity, value) in sorted(self._detections.items()):
            detections.add_metric([name, severity], value)
        yield from (denied, failures, secrets, detections)

    def _agent_families(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        info = GaugeMetricFamily(
            "parhelia_agent_info", "Version and policy of this agent; 1.", labels=["version", "policy_digest"]
        )
        info.add_metric([self._version, self._policy_digest], 1)
        level = GaugeMetricFamily(
            "parhelia_agent_enforcement_level", "1 at the level a point reaches.", labels=["point", "level"]
        )
        for point in POINTS:
            for name in LEVELS:
                level.add_metric([point, name], int(self._levels[point] == name))
        traffic = CounterMetricFamily("parhelia_agent_egress_bytes", "Bytes proxied.", labels=["direction"])
        for direction, value in self._bytes.items():
            traffic.add_metric([direction], value)
        integrity = CounterMetricFamily("parhelia_agent_integrity_changes", "Watched files changed.", labels=["kind"])
        for kind, value in self._integrity.items():
            integrity.add_metric([kind], value)
        restarts = CounterMetricFamily(
            "parhelia_agent_restarts", "Processes of the agent's that died and were replaced.", labels=["process"]
        )
        for process, value in self._restarts.items():
            restarts.add_metric([process], value)
        yield from (info, level, traffic, integrity, restarts)
        lockdowns = CounterMetricFamily("parhelia_agent_lockdowns", "Lockdowns, by measure.", labels=["measure"])
        for measure, value in self._lockdowns.items():
            lockdowns.add_metric([measure], value)
        yield lockdowns
        for counter, text, value in (
            ("parhelia_agent_egress_connections", "Connections proxied.", self._connections),
            ("parhelia_agent_audit_lost", "Events that could not be recorded.", self._lost),
            ("parhelia_agent_push_failures", "Pushes of these metrics that failed.", self._push_failures),
        ):
            yield CounterMetricFamily(counter, text, value=value)
        for gauge, text, value in (
            ("parhelia_agent_audit_sequence", "Sequence number of the last audit event on disk.", self._sequence),
            ("parhelia_agent_session_ended", "1 once the session has ended.", int(self._ended)),
        ):
            yield GaugeMetricFamily(gauge, text, value=value)

    def _decision_family(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(
            "parhelia_agent_decision_seconds", "Time to decide one request, in seconds.", labels=["point"]
        )
        bounds = [*(repr(bound) for bound in BUCKETS), "+Inf"]
        for point, timings in self._timings.items():
            total = 0
            cumulative = []
            for bound, number in zip(bounds, timings.counts, strict=True):
                total += number
                cumulative.append((bound, float(total)))
            family.add_metric([point], cumulative, timings.seconds)
        return family


class _Collector:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics.families()
