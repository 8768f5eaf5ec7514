"""Every pack loads alone and with the others, refuses what its table says, and each of its rules says what a reader
needs."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.policy import test_packs_cloud, test_packs_containers, test_packs_data, test_packs_git
from tests.policy.shipped import PACKS, rules_of, said, using


@pytest.mark.parametrize("pack", sorted(PACKS))
def test_a_pack_loads_alone_and_agrees_with_its_examples(pack: str) -> None:
    assert using(pack).warnings == ()
    assert rules_of(pack)


def test_all_packs_load_together_and_no_two_rules_have_one_name() -> None:
    assert using(*sorted(PACKS)).warnings == ()
    found = Counter(rule.id for rule in rules_of(*sorted(PACKS)))
    assert [name for name, times in found.items() if times > 1] == []


@pytest.mark.parametrize("pack", sorted(PACKS))
def test_every_rule_says_why_what_instead_and_shows_both_kinds_of_example(pack: str) -> None:
    for rule in rules_of(pack):
        assert rule.reason, rule.id
        assert rule.instead, rule.id
        assert rule.tags, rule.id
        assert rule.examples.match, rule.id
        assert rule.examples.no_match, rule.id


CASES = {
    "git": (test_packs_git.REFUSED, test_packs_git.FREE),
    "containers": (test_packs_containers.REFUSED, test_packs_containers.FREE),
    **test_packs_cloud.CASES,
    **test_packs_data.CASES,
}
"""By pack: texts by the rule that refuses them, and texts that stay free."""


@pytest.mark.parametrize(
    ("pack", "rule", "text"),
    [(pack, rule, text) for pack, (table, _) in CASES.items() for rule, texts in table.items() for text in texts],
)
def test_it_is_refused_by_the_rule_about_it(pack: str, rule: str, text: str) -> None:
    assert said(pack, text) == rule


@pytest.mark.parametrize(("pack", "text"), [(pack, text) for pack, (_, free) in CASES.items() for text in free])
def test_everyday_work_stays_free(pack: str, text: str) -> None:
    assert said(pack, text) == "allow"


@pytest.mark.parametrize("pack", sorted(CASES))
def test_every_rule_of_a_pack_has_texts_of_its_own_in_the_tables(pack: str) -> None:
    tested = {rule for table, _ in CASES.values() for rule in table}
    assert {rule.id for rule in rules_of(pack)} - tested == set()
