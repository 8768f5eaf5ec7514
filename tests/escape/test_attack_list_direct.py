"""The attack list past the proxy, on each runtime: captured and decided, or no way at all."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.escape.arena import HERE as SCRIPTS
from tests.escape.arena import Arena, Visit
from tests.escape.attack_cases import NAMES, POLICY, Attack
from tests.escape.attack_cases_direct import attacks_past_the_proxy, unheard

CAPTURED = attacks_past_the_proxy()
UNHEARD = unheard()
CAPTURES = ("host", "docker")
"""Runtimes whose sessions have their connections captured: in the jail, or by notification of connect(2)."""
OUTSIDE_TOO = ("docker",)
"""Where the container's loopback is not the session's own: what listens there is a destination like any other."""


@pytest.fixture(scope="module")
def visit(arena: Arena) -> Visit:
    """One session that tries them all."""
    client = (SCRIPTS / "arena_client.py").read_text()
    cases = [json.dumps(attack.case) for attack in (*CAPTURED, *UNHEARD)]
    return arena.visit(POLICY, NAMES, ["/usr/bin/python3", "-c", client, *cases])


@pytest.mark.parametrize(
    ("number", "attack"), list(enumerate(CAPTURED)), ids=[f"{attack.rows[0]}-{attack.name}" for attack in CAPTURED]
)
def test_what_comes_of_a_connection_past_the_proxy(arena: Arena, visit: Visit, number: int, attack: Attack) -> None:
    answer, must = visit.answers["answers"][number], attack.must
    received = answer["received"]
    if arena.name not in CAPTURES:
        assert answer["error"] is not None
    elif must.rule is None:
        assert "reached api.good.test" in received, answer
    elif must.status is None:
        assert received == "", answer
    else:
        assert received.startswith(f"HTTP/1.1 {must.status} "), answer
        assert f"X-Parhelia-Rule: {must.rule}\r\n" in received


@pytest.mark.parametrize(
    ("number", "attack"), list(enumerate(UNHEARD, len(CAPTURED))), ids=[attack.name for attack in UNHEARD]
)
def test_nobody_is_there(arena: Arena, visit: Visit, number: int, attack: Attack) -> None:
    answer = visit.answers["answers"][number]
    assert answer["received"] == "", answer
    assert answer["error"] is not None or is_decided(arena, attack), answer


def is_decided(arena: Arena, attack: Attack) -> bool:
    return arena.name in OUTSIDE_TOO and attack.case["way"] == "itself"


def test_every_refusal_is_on_record_and_counted(arena: Arena, visit: Visit) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    if arena.name in CAPTURES:
        expected.update((attack.must.rule, attack.must.resource) for attack in CAPTURED if attack.must.rule is not None)
    places = [attack.case["to"] for attack in UNHEARD if is_decided(arena, attack)]
    expected.update(("egress-default", f"{to}:{port}") for to, port in places)
    assert visit.refused == expected
    assert visit.counted == visit.refused.total()
    assert visit.outcome.verified == 0


def test_only_the_allowed_ones_reached_anybody(arena: Arena, visit: Visit) -> None:
    assert visit.escapes == []
    allowed = sum(attack.must.rule is None for attack in CAPTURED) if arena.name in CAPTURES else 0
    assert [line["host"] for line in visit.journal if line["server"] == "request"] == ["api.good.test"] * allowed
    assert set(visit.looked_up) <= {"api.good.test", "web.inspect.test"}
