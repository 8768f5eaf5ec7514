"""`hook`: answers a coding agent's pre-tool hook; exits only 0 or 2, and denies on any fault.

The same as running `agent/enforce/commands/hook_client.py` with the system's Python, which needs nothing installed and
is what the managed settings name; this verb is for trying it out and for images where only the agent's Python exists.
"""

from __future__ import annotations

import argparse

from agent.enforce.commands import hook_client


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("hook", help="answer a coding agent's pre-tool hook", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("protocol", choices=hook_client.PROTOCOLS)
    parser.add_argument("--socket", metavar="PATH", help=f"the agent's hook socket (default {hook_client.SOCKET})")
    parser.set_defaults(func=hook)


def hook(args: argparse.Namespace) -> int:
    """Answer; returns 0 or 2."""
    return hook_client.run(args.protocol, args.socket)
