"""`run`: start the agent, launch the session inside it, end with the session's status.

Has the guard begin before anything else (`guarded`), reads what was asked (`agent.cli.run_request`), then replaces
itself by the keeper with a clean environment: the agent's own variables (a gateway's credentials among them) are in
nobody's /proc/PID/environ from then on, and not in argv either: the specification travels in a memory file.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from agent.daemon.keeping.workers import First, start
from agent.exits import Exit

if TYPE_CHECKING:  # what takes time is imported when the guard is on its way
    import argparse
    from collections.abc import Callable

    from agent.daemon.base.spec import RunSpec

KEPT = ("PATH", "LANG", "TZ", "TERM")
"""Of the environment, for the agent's own processes."""


def guarded(answer: Callable[[First], int]) -> int:
    """`answer`'s status. It is given the guard of a start, which ends where the keeper does not take it over. Raises
    OSError."""
    first = start(_clean())
    try:
        return answer(first)
    finally:
        first.end()


def _clean() -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    import argparse

    parser = subparsers.add_parser(
        "run",
        help="start a confined session",
        usage="parhelia-agent run [options] -- CMD [ARG]…",
        description="Starts the agent, launches CMD as the confined session, supervises it, ends with its status"
        " (128+N for a signal, 126 where CMD is denied, 127 where it does not exist). Where the session was never"
        " started: 2 usage, 4 policy invalid, 5 a required protection is not available.",
    )
    parser.add_argument("--policy", action="append", default=[], metavar="DIR", help="policy layer (repeatable)")
    parser.add_argument("--audit-dir", metavar="DIR", help="where the audit log lies")
    parser.add_argument("--run-dir", metavar="DIR", help="where the agent's sockets lie (default /run/parhelia)")
    parser.add_argument("--user", metavar="NAME", help="the session's account (default session)")
    parser.add_argument("--workdir", metavar="DIR", help="where the session starts")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="pass this variable to the session")
    parser.add_argument(
        "--require",
        choices=("contained", "best-effort"),
        default="best-effort",
        help="contained: exit 5 where this machine enforces less (see doctor)",
    )
    parser.add_argument("--verbose", action="store_true", help="the agent's own log on stderr")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Validate, then become the keeper of `args.first`. Returns only where the session was not started."""
    from agent.cli.run_request import MissingUser, UsageError, build_spec

    try:
        _become_keeper(build_spec(args, dict(os.environ)), args.first, _clean())
    except UsageError as error:
        print(f"parhelia: {error}", file=sys.stderr)
        return Exit.USAGE
    except MissingUser as error:
        print(f"parhelia: {error}", file=sys.stderr)
        return Exit.UNPROTECTED
    return Exit.USAGE


def _become_keeper(spec: RunSpec, first: First, environment: dict[str, str]) -> None:
    memory = os.memfd_create("parhelia-spec", 0)
    os.write(memory, spec.to_bytes())
    os.lseek(memory, 0, os.SEEK_SET)
    arguments = [sys.executable, "-I", "-m", "agent.daemon.keeper", "--spec", str(memory)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [*arguments, "--first", *first.arguments()], environment)  # noqa: S606
