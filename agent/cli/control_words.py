"""What the verbs of the control socket share: their flags, one question and answer, and how it is shown."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from agent.daemon.control.wire import Message
from agent.exits import Exit
from agent.operate.control_client import Unreachable, ask, reach, run_root


def reaching(parser: argparse.ArgumentParser) -> None:
    """Which agent is meant."""
    parser.add_argument("--session", metavar="ID", help="the session, where several run here")
    parser.add_argument("--run-dir", metavar="DIR", help="where the agent's sockets lie (default /run/parhelia)")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which agent is meant, and how the answer is shown."""
    reaching(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def question(
    args: argparse.Namespace,
    message: Message,
    show: Callable[[Message], str],
    *,
    appearing: float = 0.0,
    unreached: str = "",
) -> int:
    """Ask, print the answer, return the exit code: 3 refused, 7 where no agent answers, else the verb's own.
    `appearing`: seconds for an agent to be there. `unreached`: what to say besides where none was asked."""
    reached = False
    try:
        with reach(run_root(args.run_dir), args.session, appearing=appearing) as sock:
            reached = True
            answer = ask(sock, message)
    except Unreachable as error:
        more = f"\n{unreached}" if unreached and not reached else ""
        answer = {"exit": int(error.exit), "error": f"{error}{more}"}
    status = answer.pop("exit", int(Exit.UNREACHABLE))
    if args.json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    elif "error" in answer:
        for line in str(answer["error"]).splitlines():
            sys.stderr.write(f"parhelia: {line}\n")
    else:
        (sys.stdout if sys.stdout.isatty() else sys.stderr).write(show(answer))
    return int(status)
