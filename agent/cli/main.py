"""The command line: finds the verb, imports only that verb, runs it.

Each verb lives in one file of this package, with `add_parser(subparsers)` that sets `func(args) -> int`. Exit codes are
the contract's (`agent.exits`).
"""

from __future__ import annotations

import importlib
import sys

from agent.exits import Exit
from agent.version import version

VERBS = {
    "run": "agent.cli.run",
    "exec": "agent.cli.exec",
    "check": "agent.cli.check",
    "hook": "agent.cli.hook",
    "policy": "agent.cli.policy",
    "audit": "agent.cli.audit",
    "doctor": "agent.cli.doctor",
    "status": "agent.cli.status",
    "reload": "agent.cli.reload",
    "restored": "agent.cli.restored",
    "lockdown": "agent.cli.lockdown",
}
"""Verb -> module, in the order that help shows."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns its exit code. `argv` without the program's name, default `sys.argv[1:]`."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["hook"]:
        from agent.cli.hook import guarded

        return guarded(lambda: _dispatch(arguments))
    if arguments[:1] == ["run"]:
        from agent.cli import run

        return run.guarded(lambda first: _dispatch(arguments, first=first))
    return _dispatch(arguments)


def _dispatch(arguments: list[str], **known: object) -> int:
    """`known`: more for the verb, besides what its parser finds."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="parhelia-agent", description="Policy enforcement for AI coding sessions: egress, commands, paths, audit."
    )
    parser.add_argument("--version", action="version", version=f"parhelia-agent {version()}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    wanted = [arguments[0]] if arguments and arguments[0] in VERBS else list(VERBS)
    for verb in wanted:
        importlib.import_module(VERBS[verb]).add_parser(subparsers)
    args = parser.parse_args(arguments, argparse.Namespace(**known))
    try:
        return int(args.func(args))
    except BrokenPipeError:
        return int(Exit.USAGE)
    except KeyboardInterrupt:
        return 130
