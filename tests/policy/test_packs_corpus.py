"""The published corpus against every pack: `docs/command-corpus.md` lists what is decided otherwise, no more."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from agent.policy.model import Policy
from tests.policy.corpus import DOCUMENT, answer, every_pack, pack_names, rows, shown

SECTIONS = {
    "Denied there, allowed here": ("deny", "allow"),
    "Allowed there, denied here": ("allow", "deny"),
    "Allowed there, known only when it runs": ("allow", "unverifiable"),
}
"""The document's sections: what the row expects, what is decided."""


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return every_pack(tmp_path_factory.mktemp("packs"))


def documented() -> dict[tuple[str, str], list[str]]:
    """The commands of each section of the document."""
    found: dict[tuple[str, str], list[str]] = {kind: [] for kind in SECTIONS.values()}
    parts = re.split(r"^## (.+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title in SECTIONS:
            for fence in re.findall(r"^```text\n(.*?)\n```$", body, flags=re.MULTILINE | re.DOTALL):
                found[SECTIONS[title]] += fence.splitlines()
    return found


def reasons() -> dict[str, list[str]]:
    """The heading and reason over each group of commands."""
    found = re.findall(r"^### ([^\n]+)\n\n(.+?)\n\n```text$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return {head: lines.splitlines() for head, lines in found}


def verdicts(packs: Policy) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows():
        found.setdefault((row.expect, str(answer(packs, row.command).verdict)), []).append(shown(row.command))
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_disagreement_is_in_the_document_and_nothing_else(packs: Policy, section: str) -> None:
    kind = SECTIONS[section]
    assert Counter(documented()[kind]) == Counter(verdicts(packs).get(kind, []))


def test_every_group_of_disagreements_has_its_reason() -> None:
    fences = DOCUMENT.read_text().count("\n```text\n")
    assert len(reasons()) == fences
    assert all(len(" ".join(lines)) > 40 for lines in reasons().values())


def test_the_figures_of_the_document_are_those_of_the_corpus(packs: Policy) -> None:
    found = verdicts(packs)
    lines = [
        f"| {expect} | {sum(len(found.get((expect, verdict), [])) for verdict in ('deny', 'unverifiable', 'allow'))} | "
        + " | ".join(str(len(found.get((expect, verdict), []))) for verdict in ("deny", "unverifiable", "allow"))
        + " |"
        for expect in ("deny", "allow")
    ]
    assert all(line in DOCUMENT.read_text() for line in lines), lines


def test_a_rule_of_a_pack_decides_what_is_denied(packs: Policy) -> None:
    decisions = [answer(packs, row.command) for row in rows()]
    places = {
        decision.where.partition(":")[0] for decision in decisions if str(decision.verdict) == "deny" and decision.where
    }
    assert places <= {f"policies/packs/{name}.yaml" for name in pack_names()}


def test_the_document_names_no_command_twice() -> None:
    listed = [command for commands in documented().values() for command in commands]
    assert [command for command, times in Counter(listed).items() if times > 1] == []
