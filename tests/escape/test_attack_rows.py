"""Every row of the attack list has a test: by the tables of `attack_cases.py`, or by the mark `row` on a test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.escape.attack_cases import attacks
from tests.escape.attack_cases_direct import attacks_past_the_proxy, unheard
from tests.escape.attack_cases_dns import lookups, lookups_elsewhere
from tests.escape.attack_cases_socks import attacks_by_socks

TESTS = Path(__file__).parents[1]
ROWS = range(1, 43)
_MARK = re.compile(r"@pytest\.mark\.row\(([\d, ]+)\)")


def test_every_row_of_the_attack_list_has_a_test() -> None:
    tables = (*attacks(), *attacks_by_socks(), *attacks_past_the_proxy(), *unheard(), *lookups(), *lookups_elsewhere())
    covered = {row for attack in tables for row in attack.rows}
    for path in TESTS.rglob("test_*.py"):
        for numbers in _MARK.findall(path.read_text()):
            covered |= {int(number) for number in numbers.split(",")}
    assert sorted(covered - set(ROWS)) == []
    assert sorted(set(ROWS) - covered) == []
