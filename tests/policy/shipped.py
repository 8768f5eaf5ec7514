"""The shipped packs, and what they say of a command text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from agent.daemon.policies.store import PackFiles
from agent.policy.decide import decide
from agent.policy.load import load_policy
from agent.policy.model import CommandRule, Policy
from tests.policy.given import command, layer

PACKS = PackFiles(Path(__file__).parents[2] / "policies" / "packs")


@cache
def using(*packs: str) -> Policy:
    return load_policy([layer(f"packs: [{', '.join(packs)}]")], read_command=command, packs=PACKS)


def rules_of(*packs: str) -> tuple[CommandRule, ...]:
    section = using(*packs).layers[0].commands
    assert section is not None
    return section.deny


def said(pack: str, text: str) -> str:
    """The rule that denies `text`, else the verdict."""
    decision = decide(using(pack), command(text))
    return decision.rule if decision.verdict == "deny" else str(decision.verdict)
