"""The index finds what going through all rules would find, in their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.policy.host_index import HostIndex
from agent.policy.hosts import match_host
from agent.policy.model import HostRule, Where

LABEL = st.sampled_from(["a", "b", "xa"])
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATTERN = st.tuples(st.sampled_from(["", "*."]), HOST).map("".join)


@given(st.lists(PATTERN, max_size=12), HOST)
def test_it_finds_exactly_the_rules_that_match_in_the_order_of_the_policy(patterns: list[str], host: str) -> None:
    rules = [HostRule(str(index), pattern, Where("p", 1, 1)) for index, pattern in enumerate(patterns)]
    index = HostIndex(rules)
    for _ in range(2):
        assert index.about(host) == [rule for rule in rules if match_host(rule.pattern, host)]


def test_an_address_is_found_by_its_own_rule_alone() -> None:
    rules = [HostRule("v4", "10.0.0.1", Where("p", 1, 1)), HostRule("v6", "fd00::1", Where("p", 1, 1))]
    index = HostIndex(rules)
    assert [rule.id for host in ("10.0.0.1", "fd00::1", "10.0.0.2") for rule in index.about(host)] == ["v4", "v6"]
