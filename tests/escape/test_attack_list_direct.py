"""The attack list past the proxy, on each runtime: captured and decided, or no way at all."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.escape.arena import HERE as SCRIPTS
from tests.escape.arena import Arena, Visit
from tests.escape.attack_cases import NAMES, POLICY, Attack, at
from tests.escape.attack_cases_direct import attacks_past_the_proxy, unheard

CAPTURED = attacks_past_the_proxy()
UNHEARD = unheard()
COMMON_PORTS = (22, 80, 443)
"""What gVisor captures, for IPv4 alone, and on loopback too: there the capture's listeners are ordinary ones."""


def captured(arena: Arena, attack: Attack) -> bool:
    """Whether the connection arrives at the egress process: in the jail, or by notification of connect(2) (Docker:
    there the container's loopback is not the session's own, and what listens is a destination like any other)."""
    address, port = attack.case["to"]
    if attack.case["way"] == "datagram":
        return False
    if arena.name == "gvisor":
        return port in COMMON_PORTS and ":" not in address
    return arena.name == "docker" or attack in CAPTURED


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
    if not captured(arena, attack):
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
    assert answer["error"] is not None or captured(arena, attack), answer


def test_every_refusal_is_on_record_and_counted(arena: Arena, visit: Visit) -> None:
    there = [attack for attack in CAPTURED if captured(arena, attack)]
    expected = Counter((attack.must.rule, attack.must.resource) for attack in there if attack.must.rule is not None)
    own = [attack for attack in UNHEARD if captured(arena, attack)]
    expected.update(("egress-default", at(*attack.case["to"])) for attack in own)
    assert visit.refused == expected
    assert visit.counted == visit.refused.total()
    assert visit.outcome.verified == 0


def test_only_the_allowed_ones_reached_anybody(arena: Arena, visit: Visit) -> None:
    assert visit.escapes == []
    allowed = sum(attack.must.rule is None for attack in CAPTURED if captured(arena, attack))
    assert [line["host"] for line in visit.journal if line["server"] == "request"] == ["api.good.test"] * allowed
    assert set(visit.looked_up) <= {"api.good.test", "web.inspect.test"}
