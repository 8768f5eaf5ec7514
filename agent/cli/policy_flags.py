"""What the verbs that read a policy share: the `--policy` flag, its environment, and how a refused policy is shown."""

from __future__ import annotations

import argparse
import json
import os
import sys

from agent.cli.run_request import policy_directories
from agent.daemon.base.spec import POLICIES
from agent.policy.model import Policy
from agent.policy.problem import PolicyError


def add_policy_flag(parser: argparse.ArgumentParser) -> None:
    """`--policy DIR`, repeatable: each one layer."""
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="DIR",
        help=f"policy layer (repeatable; default $PARHELIA_POLICY_DIR, {POLICIES}, the embedded policy)",
    )


def load(flags: list[str]) -> Policy:
    """The effective policy. Raises PolicyError."""
    from agent.daemon.policies.store import read_policy

    return read_policy(policy_directories(flags, os.environ))


def show_problems(error: PolicyError, *, as_json: bool) -> None:
    """All problems: one JSON document on stdout, or lines on stderr."""
    if as_json:
        problems = [
            {
                "file": problem.where.file,
                "line": problem.where.line,
                "column": problem.where.column,
                "message": problem.message,
                "fix": problem.fix,
            }
            for problem in error.problems
        ]
        print(json.dumps({"valid": False, "problems": problems}, ensure_ascii=False))
        return
    for problem in error.problems:
        print(problem, file=sys.stderr)
    count = len(error.problems)
    print(f"parhelia: the policy is refused: {count} problem{'s' if count != 1 else ''}", file=sys.stderr)
