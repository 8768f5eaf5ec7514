"""The attack list by the proxy's own door: every case in one session per runtime, on real sockets and real ports."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.escape.arena import HERE as SCRIPTS
from tests.escape.arena import Arena, Visit
from tests.escape.attack_cases import NAMES, POLICY, Attack, attacks
from tests.escape.attack_cases_socks import attacks_by_socks

ATTACKS = [*attacks(), *attacks_by_socks()]
ESTABLISHED = ("HTTP/1.1 200 ", "\5\0")


@pytest.fixture(scope="module")
def visit(arena: Arena) -> Visit:
    """One session that tries them all."""
    client = (SCRIPTS / "arena_client.py").read_text()
    cases = [json.dumps(attack.case) for attack in ATTACKS]
    return arena.visit(POLICY, NAMES, ["/usr/bin/python3", "-c", client, *cases])


@pytest.mark.parametrize(
    ("number", "attack"), list(enumerate(ATTACKS)), ids=[f"{attack.rows[0]}-{attack.name}" for attack in ATTACKS]
)
def test_what_the_session_sees(visit: Visit, number: int, attack: Attack) -> None:
    answer, must = visit.answers["answers"][number], attack.must
    received = answer["received"]
    assert answer["error"] is None
    if must.rule is None:
        assert "reached " in received, received
        return
    assert "reached " not in received, received
    if must.status is None:
        assert received.startswith(ESTABLISHED), received
        assert "HTTP/1.1 " not in received[1:], received
        return
    if received[:1] in ("\5", "\0"):  # a SOCKS reply
        assert ord(received[1]) == must.status, received
        return
    head = received.rpartition("HTTP/1.1 ")[2].partition("\r\n\r\n")[0]
    assert head.startswith(f"{must.status} "), received
    assert f"X-Parhelia-Rule: {must.rule}" in head.split("\r\n"), received
    assert must.says in received


def expected(visit: Visit) -> Counter[tuple[str, str]]:
    port = str(visit.answers["proxy"])
    return Counter(
        (attack.must.rule, attack.must.resource.replace("{proxy}", port))
        for attack in ATTACKS
        if attack.must.rule is not None
    )


def test_every_refusal_is_on_record_once_and_nothing_else_is(visit: Visit) -> None:
    assert visit.refused == expected(visit)
    assert visit.outcome.verified == 0


def test_every_refusal_is_counted(visit: Visit) -> None:
    assert visit.counted == expected(visit).total()


def test_nothing_was_contacted_that_the_policy_does_not_allow(visit: Visit) -> None:
    allowed = [attack for attack in ATTACKS if attack.must.rule is None]
    assert visit.escapes == []
    hosts = Counter(line["host"] for line in visit.journal if line["server"] == "request")
    assert hosts == Counter(attack.case["sni"] for attack in allowed)


def test_a_name_is_looked_up_once_where_the_policy_allows_it_and_else_never(visit: Visit) -> None:
    assert set(visit.looked_up) <= set(NAMES)
    assert not [name for name in visit.looked_up if not name.endswith((".good.test", ".inspect.test"))]
    assert set(visit.looked_up.values()) == {1}
    assert {"rebind.good.test", "api.good.test", "cgnat-0.good.test"} <= set(visit.looked_up)


def test_of_a_tunnel_that_is_cut_no_byte_goes_upstream(visit: Visit) -> None:
    web = [line for line in visit.journal if line["server"] == "127.0.0.1:443"]
    assert sum(line["bytes"] for line in web) == sum(attack.must.rule is None for attack in ATTACKS)
    assert not [line for line in visit.journal if "error" in line]
