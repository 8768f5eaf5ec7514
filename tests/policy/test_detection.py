"""Detectors against a counter that remembers everything, and the edges of their windows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.detection import Sighting, Watch
from tests.policy.given import HOME, policy

SECOND = 1_000_000_000
DENIED = "{events: [bash.dangerous, permission.denied], result: denied}"


def watch(*detectors: str, more: str = "") -> Watch:
    return Watch(policy("detect:\n" + "".join(f"  - {entry}\n" for entry in detectors) + more), HOME)


def counter(count: int = 3, within: int = 10, when: str = DENIED, rest: str = "") -> str:
    return f"{{id: d, when: {when}, count: {count}, within: {within}{rest}}}"


def denied(resource: str = "x", count: int = 1, **fields: str) -> Sighting:
    return Sighting(**({"event": "bash.dangerous", "result": "denied", "resource": resource} | fields), many=count)  # type: ignore[arg-type]


def times(under: Watch, moments: Sequence[float], one: Sighting | None = None) -> list[float]:
    """At which of the moments (seconds) it was detected."""
    return [at for at in moments if under.saw(one or denied(), int(at * SECOND))]


def test_the_occurrence_that_reaches_the_threshold_is_the_detection_and_none_before() -> None:
    assert times(watch(counter(6, 300)), [0, 1, 2, 3, 4]) == []
    assert times(watch(counter(6, 300)), [0, 1, 2, 3, 4, 299]) == [299]


def test_two_that_are_a_whole_window_apart_are_in_no_common_window() -> None:
    assert times(watch(counter(2, 10)), [0, 10]) == []
    assert times(watch(counter(2, 10)), [0, 9.999999]) == [9.999999]


def test_one_flood_is_one_detection_a_window_and_the_rest_is_counted() -> None:
    under = watch(counter(3, 10))
    moments = [number / 100 for number in range(2100)]
    found = [(at, hit) for at in moments for hit in under.saw(denied(), int(at * SECOND))]
    assert [at for at, _ in found] == [0.02, 10.04, 20.06]
    assert [(hit.occurrences, hit.meanwhile) for _, hit in found] == [(3, 0), (3, 999), (3, 999)]


def test_an_event_that_stands_for_many_counts_as_many() -> None:
    (hit,) = watch(counter(10, 60)).saw(denied(count=25), 0)
    assert (hit.occurrences, hit.detector.id) == (25, "d")


def test_a_clock_that_goes_back_loses_nothing() -> None:
    assert times(watch(counter(3, 10)), [100, 5, 101]) == [101]


@pytest.mark.parametrize(
    ("when", "seen", "counts"),
    [
        (DENIED, denied(), True),
        (DENIED, denied(result="success"), False),
        (DENIED, denied(event="network.egress_blocked"), False),
        ("{events: bash.dangerous, severity: high}", denied(severity="critical"), True),
        ("{events: bash.dangerous, severity: high}", denied(severity="medium"), False),
        ("{events: bash.dangerous, severity: low}", denied(), False),
        ("{events: bash.dangerous, rules: ['self-protection-*', exec-race]}", denied(rule="exec-race"), True),
        ("{events: bash.dangerous, rules: ['self-protection-*']}", denied(rule="self-protection-files"), True),
        ("{events: bash.dangerous, rules: ['self-protection-*']}", denied(rule="shutdown"), False),
        ("{events: bash.dangerous, tags: [privilege]}", denied(rule="become"), True),
        ("{events: bash.dangerous, tags: [privilege]}", denied(rule="shutdown"), False),
        ("{events: bash.dangerous, tags: [privilege]}", denied(), False),
        ("{events: permission.denied, resources: <secret-file>}", denied(event="permission.denied"), False),
        *(
            ("{events: permission.denied, resources: <secret-file>}", denied(place, event="permission.denied"), secret)
            for place, secret in (
                ("/w/.env", True),
                ("/home/session/.ssh/id_ed25519", True),
                ("/w/.env.example", False),
                ("/w/../w/.env", True),
                (".env", False),
            )
        ),
        ("{events: permission.denied, resources: '/srv/*'}", denied("/srv/a/b", event="permission.denied"), True),
        ("[{events: auth.failure}, {events: bash.dangerous}]", denied(), True),
    ],
)
def test_a_sign_counts_what_fits_all_of_it(when: str, seen: Sighting, *, counts: bool) -> None:
    rules = (
        "commands:\n  deny:\n"
        "    - {id: become, match: {program: become}, tags: [privilege],"
        " examples: {match: [become], no_match: [x]}}\n"
        "    - {id: shutdown, match: {program: halt}, tags: [other], examples: {match: [halt], no_match: [x]}}\n"
    )
    under = watch(counter(1, 10, when), more=rules)
    assert bool(under.saw(seen, 0)) is counts


def test_an_event_that_two_signs_describe_counts_once() -> None:
    under = watch(counter(2, 10, "[{events: bash.dangerous}, {events: bash.dangerous, result: denied}]"))
    assert times(under, [0, 1]) == [1]


def test_different_resources_are_counted_once_each_and_the_oldest_leave() -> None:
    under = watch(counter(3, 10, rest=", distinct: resource"))
    assert not any(under.saw(denied("a"), number * SECOND) for number in range(9))
    assert not under.saw(denied("b"), 9 * SECOND)
    assert not under.saw(denied("c"), 19 * SECOND)  # a was last seen at 8, b at 9: only c is left
    assert not under.saw(denied("d"), 20 * SECOND)
    (hit,) = under.saw(denied("e"), 21 * SECOND)
    assert hit.occurrences == 3


def test_bytes_are_added_up_within_the_window() -> None:
    under = watch("{id: up, upload: 1000, within: 256}")
    assert not under.uploaded(999, 0)
    assert not under.uploaded(999, 257 * SECOND)
    assert not under.uploaded(0, 258 * SECOND)
    (hit,) = under.uploaded(1, 259 * SECOND)
    assert hit.occurrences == 1000
    assert not under.uploaded(10**9, 260 * SECOND)


def test_another_policy_keeps_what_an_unchanged_detector_has_seen() -> None:
    under = watch(counter(3, 10))
    assert times(under, [0, 1]) == []
    under.follow(policy(f"detect:\n  - {counter(3, 10)}\n  - {{id: other, upload: 1, within: 1m}}\n"))
    assert times(under, [2]) == [2]
    under.follow(policy("version: 1"))
    assert not under.watches("bash.dangerous")
    assert times(under, [30, 31, 32, 33]) == []


@settings(max_examples=300, deadline=None)
@given(
    threshold=st.integers(1, 6),
    within=st.integers(1, 8),
    steps=st.lists(st.tuples(st.integers(0, 4 * SECOND), st.integers(1, 3), st.sampled_from("abc")), max_size=60),
    distinct=st.booleans(),
)
def test_every_detection_is_that_of_a_counter_that_remembers_everything(
    threshold: int, within: int, steps: list[tuple[int, int, str]], *, distinct: bool
) -> None:
    under = watch(counter(threshold, within, rest=", distinct: resource" if distinct else ""))
    span = within * SECOND
    now, rests, meanwhile = 0, -1, 0
    seen: list[tuple[int, int, str]] = []
    for step, many, resource in steps:
        now += step
        found = [(hit.occurrences, hit.meanwhile) for hit in under.saw(denied(resource, many), now)]
        if now < rests:
            meanwhile += many
            assert found == []
            continue
        seen.append((now, many, resource))
        recent = [entry for entry in seen if entry[0] > now - span]
        total = len({entry[2] for entry in recent}) if distinct else sum(entry[1] for entry in recent)
        assert found == ([(total, meanwhile)] if total >= threshold else [])
        if found:
            seen, meanwhile, rests = [], 0, now + span


@settings(max_examples=200, deadline=None)
@given(
    threshold=st.integers(1, 5000),
    steps=st.lists(st.tuples(st.integers(0, 30 * SECOND), st.integers(0, 2000)), max_size=60),
)
def test_a_threshold_of_bytes_is_never_missed_and_the_window_hardly_too_long(
    threshold: int, steps: list[tuple[int, int]]
) -> None:
    within = 60
    under = watch(f"{{id: up, upload: {threshold}, within: {within}}}")
    span, slack = within * SECOND, within * SECOND // 256
    now, rests = 0, -1
    seen: list[tuple[int, int]] = []
    for step, size in steps:
        now += step
        found = [hit.occurrences for hit in under.uploaded(size, now)]
        if now < rests or not size:
            assert found == []
            continue
        seen.append((now, size))
        least = sum(size for at, size in seen if at > now - span)
        most = sum(size for at, size in seen if at > now - span - slack)
        assert all(least <= total <= most for total in found)
        assert found or least < threshold
        if found:
            seen, rests = [], now + span
