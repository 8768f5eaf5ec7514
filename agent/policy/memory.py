"""Answers about destinations that were given before, so that the same question costs nothing the second time. Pure.

Rules kept here: what is remembered is what `decide` would say again, which is a matter of the policy (the very object)
and of every field of the request but its origin (never part of a verdict); a single request inside a connection is the
same question as another one only where no rule about its host asks for more than the connection, and where it was
allowed (the text of a denial names it); what is kept is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Final

from agent.policy.decide_egress import sections
from agent.policy.decision import Decision, Verdict
from agent.policy.egress_match import conditional
from agent.policy.model import Policy
from agent.policy.request import EgressRequest, Request, Stage
from agent.values import fields

MOST: Final = 512
"""Answers, and hosts, that are kept."""

_OF_A_REQUEST: Final = ("method", "path", "query", "headers")
_FIELDS: Final = tuple(field.name for field in fields(EgressRequest) if field.name != "origin")
_WHOLE: Final = attrgetter(*_FIELDS)
_CONNECTION: Final = attrgetter(*(name for name in _FIELDS if name not in _OF_A_REQUEST))


class Memory:
    """Of one policy at a time. Not for several threads without a lock of the caller's."""

    __slots__ = ("_answers", "_plain", "_policy")

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._answers: dict[Hashable, Decision] = {}
        self._plain: dict[str, bool] = {}

    def ask(self, policy: Policy, request: Request, decide: Callable[[Policy, Request], Decision]) -> Decision:
        """What `decide` says, or has said. Raises what `decide` raises."""
        if policy is not self._policy:
            self._answers.clear()
            self._plain.clear()
            self._policy = policy
        if not isinstance(request, EgressRequest):
            return decide(policy, request)
        inside = request.stage is Stage.REQUEST
        if inside and not self._is_plain(policy, request.host):
            return decide(policy, request)
        key: Hashable = (_CONNECTION if inside else _WHOLE)(request)
        decision = self._answers.get(key)
        if decision is None:
            decision = decide(policy, request)
            if not inside or decision.verdict is Verdict.ALLOW:
                _keep(self._answers, key, decision)
        return decision

    def _is_plain(self, policy: Policy, host: str) -> bool:
        """True where no rule about this host looks at single requests."""
        plain = self._plain.get(host)
        if plain is None:
            rules = (
                rule
                for _, section in sections(policy)
                for index in (section.allows, section.denies)
                for rule in index.about(host)
            )
            plain = not any(map(conditional, rules))
            _keep(self._plain, host, plain)
        return plain


def _keep[K, V](table: dict[K, V], key: K, value: V) -> None:
    if len(table) >= MOST:
        table.clear()
    table[key] = value
