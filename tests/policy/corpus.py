"""The shared corpus of commands: which rows count here, and what the policy with every pack answers.

Rules: the rows are read where they lie and never copied; a command is written into `docs/command-corpus.md` only where
this project disagrees with its row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.daemon.policies.store import embedded_policy_dir, read_policy
from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.model import Policy
from tests.conftest import require
from tests.shell.given import request

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "commands.jsonl"
DOCUMENT = Path(__file__).parents[2] / "docs" / "command-corpus.md"
OURS = (
    "core",
    "git",
    "strict_git",
    "cloud",
    "kubernetes",
    "containers",
    "infrastructure",
    "database",
    "package_managers",
)
"""The corpus' names (their first part) of the packs that this project has."""
OPINIONS = ("tier:", "rule:", "policy-dependent", "pack-scoped-allow")
"""Tags of rows that say what one guard prefers."""


@dataclass(frozen=True)
class Row:
    """One command and the verdict that its guard's tests expect (``deny`` or ``allow``)."""

    command: str
    expect: str
    tags: tuple[str, ...]


@cache
def rows() -> tuple[Row, ...]:
    """The rows that count: of the packs that are here, and those of no pack, without opinions."""
    require(CORPUS.is_file(), "the shared corpus is not beside this checkout")
    found = (json.loads(line) for line in CORPUS.read_text().splitlines())
    return tuple(Row(r["command"], r["expect"], tuple(r["tags"])) for r in found if _counts(r["tags"]))


def _counts(tags: list[str]) -> bool:
    packs = [tag.removeprefix("pack:").partition(".")[0] for tag in tags if tag.startswith("pack:")]
    return not any(tag.startswith(OPINIONS) for tag in tags) and (not packs or any(pack in OURS for pack in packs))


def pack_names() -> list[str]:
    """Every shipped pack."""
    return sorted(file.stem for file in (embedded_policy_dir() / "packs").glob("*.yaml"))


@cache
def every_pack(directory: Path) -> Policy:
    """The default policy with every pack, written to `directory` first."""
    for file in embedded_policy_dir().glob("*.yaml"):
        (directory / file.name).write_text(file.read_text())
    commands = "version: 1\npacks: [{}]\ncommands: {{mode: enforce, unverifiable: supervise}}\n"
    (directory / "commands.yaml").write_text(commands.format(", ".join(pack_names())))
    return read_policy([directory])


def answer(policy: Policy, command: str) -> Decision:
    """What the policy decides about a command line in a project of the workspace."""
    return decide(policy, request(command))


def shown(command: str) -> str:
    """A command on one line, as the document has it."""
    return command.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
