"""`lockdown`: a running session contained, its evidence kept; or let go again."""

from __future__ import annotations

import argparse

from agent.cli.control_words import add_flags, question
from agent.daemon.control.wire import Message
from agent.operate.control_client import APPEARING_SECONDS

_UNREACHED = "nothing was contained: a session that starts from now on begins without any lockdown"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "lockdown",
        help="contain a running session, keep evidence",
        description="Contains the session and keeps evidence beside its audit log. Each measure includes those before"
        " it; without a flag the session is frozen.",
    )
    measure = parser.add_mutually_exclusive_group()
    for name, text in (
        ("cut", "nothing leaves by the network any more"),
        ("freeze", "its processes are held still, every command is refused"),
        ("kill", "it is ended"),
    ):
        measure.add_argument(f"--{name}", dest="measure", action="store_const", const=name, help=text)
    measure.add_argument("--lift", action="store_true", help="let it go on (admins only)")
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the record")
    add_flags(parser)
    parser.set_defaults(func=lockdown, measure="freeze")


def lockdown(args: argparse.Namespace) -> int:
    """0 where the session is contained (or let go) and that is on disk, 2 nothing to lift, 3 refused, 7 no agent."""
    if args.lift:
        return question(args, {"verb": "lift", "cause": args.reason}, lambda answer: "lifted\n")
    asked: Message = {"verb": "lockdown", "measure": args.measure, "cause": args.reason}
    return question(args, asked, _text, appearing=APPEARING_SECONDS, unreached=_UNREACHED)


def _text(answer: Message) -> str:
    found = answer["lockdown"]
    return f"{', '.join(found['measures'])}; evidence in {answer['audit_dir']}/{found['evidence'][-1]}\n"
