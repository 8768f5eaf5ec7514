"""`restored`: told by the platform that this container was restored from a checkpoint."""

from __future__ import annotations

import argparse

from agent.cli.control_words import add_flags, question


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "restored",
        help="tell a running agent that its container was restored from a checkpoint",
        description="The agent begins a new boot and a new stream, linked to the one before. To be called first of all"
        " after a restore, by whoever restores; admins only.",
    )
    parser.add_argument("checkpoint", nargs="?", default="", metavar="ID", help="the checkpoint, for the record")
    add_flags(parser)
    parser.set_defaults(func=restored)


def restored(args: argparse.Namespace) -> int:
    """0 where the new stream is on disk, 3 refused, 5 where there is no place for it, 7 no agent."""
    return question(args, {"verb": "restored", "cause": args.checkpoint}, lambda answer: f"boot {answer['boot']}\n")
