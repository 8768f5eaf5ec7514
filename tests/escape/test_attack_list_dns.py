"""The attack list's lookups on each runtime: answered for allowed names, refused without a question upstream, or no way
at all."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.escape.arena import HERE as SCRIPTS
from tests.escape.arena import Arena, Visit
from tests.escape.attack_cases import NAMES, POLICY, Attack
from tests.escape.attack_cases_dns import ANYBODY, lookups, lookups_elsewhere

LOOKUPS = [*lookups(), *lookups_elsewhere()]
JAILED = {("127.0.0.1", "datagram"), (ANYBODY, "datagram"), (ANYBODY, "itself")}
SERVED = {
    "host": JAILED,
    "docker": {(ANYBODY, "itself")},  # without a jail there are no datagrams, and lookups go by TCP
    "gvisor": JAILED,
}
"""Runtime -> the servers that a session can ask, and how."""


def served(arena: Arena, attack: Attack) -> bool:
    return (attack.case["to"][0], attack.case["way"]) in SERVED[arena.name]


@pytest.fixture(scope="module")
def visit(arena: Arena) -> Visit:
    """One session that asks for them all."""
    client = (SCRIPTS / "arena_client.py").read_text()
    return arena.visit(
        POLICY, NAMES, ["/usr/bin/python3", "-c", client, *(json.dumps(attack.case) for attack in LOOKUPS)]
    )


@pytest.mark.parametrize(("number", "attack"), list(enumerate(LOOKUPS)), ids=[attack.name for attack in LOOKUPS])
def test_what_a_lookup_gets(arena: Arena, visit: Visit, number: int, attack: Attack) -> None:
    answer = visit.answers["answers"][number]
    if not served(arena, attack):
        assert answer["error"] is not None, answer
        return
    received = answer["received"].encode("latin-1")
    received = received[2:] if attack.case["way"] == "itself" else received
    assert received[:2] == b"\x47\x11", answer
    assert received[3] & 0x0F == attack.must.status
    assert (b"\x7f\0\0\1" in received) == (attack.must.rule is None)


def test_every_refusal_is_on_record_and_counted(arena: Arena, visit: Visit) -> None:
    expected = Counter(
        (attack.must.rule, attack.must.resource)
        for attack in LOOKUPS
        if attack.must.rule is not None and served(arena, attack)
    )
    assert visit.refused == expected
    assert visit.counted == expected.total()
    assert visit.outcome.verified == 0


def test_nothing_but_an_allowed_name_was_asked_upstream(visit: Visit) -> None:
    assert visit.escapes == []
    asked = {(line["name"], line["kind"]) for line in visit.journal if line["server"] == "dns"}
    assert asked <= {(name, kind) for name in ("api.good.test", "metadata-0.good.test") for kind in (1, 28)}
    assert set(visit.looked_up.values()) <= {1}
