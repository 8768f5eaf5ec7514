"""`hook`: answers a coding agent's pre-tool hook; exits only 0 or 2, and denies on any fault.

Managed settings name the native client (`parhelia-hook`), or `hook_client.py` with the system's Python, because both
read no environment and need nothing installed; this verb is for trying it out, and for where only the agent's own
Python exists.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.enforce.commands import hook_client

if TYPE_CHECKING:
    import argparse


def guarded(answer: Callable[[], int]) -> int:
    """`answer`'s status where it is 0 or 2, else 2: a fault or a signal before the hook is at work is a block too."""
    status = hook_client.BLOCKED
    try:
        status = answer()
    except SystemExit as end:  # argparse: help is 0, everything else a usage error
        status = 0 if end.code == 0 else hook_client.BLOCKED
    except BaseException as error:  # the fail-closed wrapper of this enforcement point
        with contextlib.suppress(Exception):  # the exit status says it
            sys.stderr.write(f"parhelia: denied by agent-fault: the hook failed ({type(error).__name__})\n")
    return status if status == 0 else hook_client.BLOCKED


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    import argparse

    parser = subparsers.add_parser("hook", help="answer a coding agent's pre-tool hook", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("protocol", choices=hook_client.PROTOCOLS)
    parser.add_argument("--socket", metavar="PATH", help=f"the agent's hook socket (default {hook_client.SOCKET})")
    parser.set_defaults(func=hook)


def hook(args: argparse.Namespace) -> int:
    """Answer; returns 0 or 2."""
    return hook_client.run(args.protocol, args.socket)
