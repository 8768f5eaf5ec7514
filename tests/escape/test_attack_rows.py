"""Every row of the attack list has a test: by the tables of `attack_cases.py`, or by the mark `row` on a test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.escape.attack_cases import attacks

TESTS = Path(__file__).parents[1]
ROWS = range(1, 43)
PENDING = frozenset({26, 34})
"""Rows whose protection is not built yet."""
_MARK = re.compile(r"@pytest\.mark\.row\(([\d, ]+)\)")


def test_every_row_of_the_attack_list_has_a_test() -> None:
    covered = {row for attack in attacks() for row in attack.rows}
    for path in TESTS.rglob("test_*.py"):
        for numbers in _MARK.findall(path.read_text()):
            covered |= {int(number) for number in numbers.split(",")}
    assert sorted(covered - set(ROWS)) == []
    assert sorted(set(ROWS) - covered) == sorted(PENDING)
