"""`status`: how a running agent and its session are."""

from __future__ import annotations

import argparse

from agent.cli.control_words import add_flags, question
from agent.daemon.control.wire import Message


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("status", help="how a running agent and its session are")
    add_flags(parser)
    parser.set_defaults(func=status)


def status(args: argparse.Namespace) -> int:
    """0 where an agent answers, 3 refused, 7 where none does."""
    return question(args, {"verb": "status"}, _text)


def _text(answer: Message) -> str:
    found = answer["status"]
    locked = found["lockdown"]
    pids = ", ".join(f"{name} {pid}" for name, pid in found["pids"].items())
    denials = ", ".join(f"{count} {name}" for name, count in found["denials"].items())
    lines = [
        f"session   {found['session_id']} (boot {found['boot']}), user {found['user']}",
        f"running   {found['uptime_seconds']} s, since {found['since']}; {pids}",
        f"policy    {found['policy']['digest'][:12]} from {', '.join(found['policy']['sources'])}",
        "levels    " + ", ".join(f"{point} {level}" for point, level in found["levels"].items()),
        f"denials   {denials}",
        f"egress    {found['egress']['bytes_up']} bytes up, {found['egress']['bytes_down']} down",
        f"audit     event {found['audit']['synced']} of {found['audit']['seq']} on disk in"
        f" {found['audit']['directory']}" + (f": {found['audit']['failure']}" if found["audit"]["failure"] else ""),
        f"lockdown  {locked['measures'][-1]} since {locked['since']}: {locked['cause']}"
        if locked["measures"]
        else "lockdown  no",
    ]
    return "\n".join(lines) + "\n"
