"""The terms of an allowed connection: the strictest of all layers."""

from __future__ import annotations

from agent.policy.decision import Decision, Verdict
from agent.policy.model import Credential, HostLimits, HostRule, Mode, Tls, Where
from agent.policy.terms import Terms, terms

WHERE = Where("policy.yaml", 1, 1)


def _rule(**given: object) -> HostRule:
    return HostRule("a", "a.test", WHERE, **given)  # type: ignore[arg-type]


def _terms(*rules: HostRule) -> Terms:
    return terms(Decision(Verdict.ALLOW, "a", "", "", grants=rules))


def test_the_smallest_limit_of_each_kind_holds() -> None:
    wide = _rule(limits=HostLimits(body=10, upload=5, connections=3))
    narrow = _rule(limits=HostLimits(body=4, idle=7))
    assert _terms(wide, narrow).limits == HostLimits(body=4, upload=5, connections=3, idle=7)


def test_every_layers_demands_hold() -> None:
    credential = Credential("key", only=True)
    found = _terms(_rule(scan=True), _rule(credential=credential), _rule(tls=Tls.PASSTHROUGH))
    assert found == Terms(credentials=(credential,), scan=True, passthrough=True)


def test_terms_are_only_observed_where_every_rule_that_asks_observes() -> None:
    watching, asking = _rule(scan=True, mode=Mode.OBSERVE), _rule(scan=True)
    assert _terms(watching).observed
    assert _terms(watching, _rule()).observed
    assert not _terms(watching, asking).observed
    assert not _terms(_rule(mode=Mode.OBSERVE)).observed


def test_no_rule_no_terms() -> None:
    assert _terms() == Terms()
