"""`exec`: a further command inside a running session's confinement."""

from __future__ import annotations

import argparse
import os
import sys

from agent.cli.control_words import reaching
from agent.exits import Exit
from agent.operate.control_client import Unreachable, reach, run_root
from agent.operate.exec_relay import ExecRelay


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "exec",
        help="run a further command inside the running session's confinement",
        usage="parhelia-agent exec [options] -- CMD [ARG]…",
        description="Runs CMD beside the session's own command, under the same confinement and policy, and ends with"
        " its status (128+N for a signal, 126 where CMD is denied, 127 where it does not exist). Where it was never"
        " started: 2 usage, 3 the caller has not the role, 5 it could not be started, 7 no agent answers.",
    )
    reaching(parser)
    parser.add_argument("--workdir", metavar="DIR", help="where it starts (default: where the session started)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="pass this variable to it")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Hand the command over and carry its streams."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    missing = [name for name in args.env if name not in os.environ]
    if not command or missing:
        fault = f"--env {missing[0]}: not set here" if missing else "no command: parhelia-agent exec -- CMD [ARG]…"
        sys.stderr.write(f"parhelia: {fault}\n")
        return Exit.USAGE
    env = {name: os.environ[name] for name in ("TERM", "LANG", *args.env) if name in os.environ}
    question = {"argv": command, "env": env, "workdir": args.workdir}
    try:
        with reach(run_root(args.run_dir), args.session) as sock:
            answer = ExecRelay(sock).run(question)
    except Unreachable as error:
        answer = {"exit": int(error.exit), "error": str(error)}
    for line in str(answer.get("error", "")).splitlines():
        sys.stderr.write(f"parhelia: {line}\n")
    return int(answer["exit"])
