"""Bundles in a policy: what they bring, under which name, and where they cannot be had."""

from __future__ import annotations

import pytest

from agent.policy.bundles import BundleFault, ToolHost
from agent.policy.load import PolicyError, load_policy, offer
from agent.policy.request import Protocol
from tests.policy.given import layer

BUNDLE = (
    "version: 1\nallow:\n  - {id: web, host: good.test, reason: r, examples: {match: [good.test]}}\n  - '*.good.test'\n"
)


def test_a_shipped_bundle_brings_its_hosts_under_its_own_name() -> None:
    loaded = load_policy([layer("use: [good]")], {"good": BUNDLE})
    assert loaded.layers[0].egress is not None
    assert [(rule.id, rule.pattern, str(rule.where)) for rule in loaded.layers[0].egress.allow] == [
        ("good/web", "good.test", "policies/bundles/good.yaml:3"),
        ("good/allow.[1]", "*.good.test", "policies/bundles/good.yaml:4"),
    ]


def test_a_bundle_may_overlap_with_the_layers_own_rules() -> None:
    text = "use: [good]\negress: {allow: [good.test], deny: [b.good.test, '*.good.test']}"
    assert load_policy([layer(text)], {"good": BUNDLE}).layers[0].egress is not None


def test_a_bundle_of_a_tool_brings_the_hosts_of_its_configuration() -> None:
    hosts = (
        ToolHost("Index.Corp.test", 8443, Protocol.TLS, "pip: somewhere"),
        ToolHost("m.test", 80, Protocol.HTTP, "x"),
    )
    loaded = load_policy([layer("use: [pip]")], {"pip": hosts})
    assert loaded.layers[0].egress is not None
    assert [(rule.id, rule.pattern, rule.ports, rule.protocol) for rule in loaded.layers[0].egress.allow] == [
        ("pip[0]", "index.corp.test", (8443,), Protocol.TLS),
        ("pip[1]", "m.test", (80,), Protocol.HTTP),
    ]


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (
            BundleFault("pip is not there", "install it"),
            "layer/a.yaml:1:7: the bundle 'good' cannot be used: pip is not",
        ),
        ((ToolHost("bad host", 443, Protocol.TLS, "pip: x"),), "pip: x names a host that is refused"),
        ("version: 1\nallow: []", "policies/bundles/good.yaml:2:8: an empty list"),
        ("version: 1\nallow: [x.test]\npaths: {}", "policies/bundles/good.yaml:3:1: unknown key 'paths' in a bundle"),
        (
            "version: 1\nallow: [{host: x.test, examples: {match: [y.test]}}]",
            "policies/bundles/good.yaml:2:9: good/allow.[0]",
        ),
    ],
)
def test_a_bundle_that_cannot_be_had_is_a_problem_of_the_policy(
    bundle: str | tuple[ToolHost, ...] | BundleFault, expected: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy([layer("use: [good]")], {"good": bundle})
    assert expected in str(caught.value)


def test_a_bundle_used_twice_is_a_problem() -> None:
    with pytest.raises(PolicyError, match="the bundle 'good' is used twice"):
        load_policy([layer("use: [good]", "use: [good]")], {"good": BUNDLE})


def test_an_offer_names_the_hosts_a_bundle_would_bring() -> None:
    assert offer("good", BUNDLE).patterns == ("good.test", "*.good.test")
    with pytest.raises(PolicyError):
        offer("bad", "allow: 1")
