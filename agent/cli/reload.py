"""`reload`: the policy of a running agent, read again now."""

from __future__ import annotations

import argparse

from agent.cli.control_words import add_flags, question


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("reload", help="read the policy of a running agent again")
    add_flags(parser)
    parser.set_defaults(func=reload)


def reload(args: argparse.Namespace) -> int:
    """0 where the policy as it is now is in force, 4 where the last good one stays, 3 refused, 7 no agent."""
    return question(args, {"verb": "reload"}, lambda answer: f"in force: {answer['digest']}\n")
