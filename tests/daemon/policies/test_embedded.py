"""The default policy is found in the checkout."""

from __future__ import annotations

from pathlib import Path

from agent.daemon.policies.embedded import embedded_policy_dir

CHECKOUT = Path(__file__).parents[3]


def test_in_a_checkout_the_embedded_policy_is_the_top_level_one() -> None:
    assert embedded_policy_dir() == CHECKOUT / "policies"
