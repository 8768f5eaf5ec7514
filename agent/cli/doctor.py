"""`doctor`: what is enforced on this machine, and what is not."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from agent.exits import Exit


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("doctor", help="what this machine can enforce, and what would raise it")
    parser.description = (
        "Tries what this machine offers, and says which level each enforcement point reaches, why, what would raise it,"
        " and which refusals leave no line in the log. Run it as the user and in the container that sessions get."
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    required = parser.add_argument("--require", choices=("contained", "best-effort"), default="best-effort")
    required.help = "contained: exit 5 where this machine enforces less"
    parser.set_defaults(func=doctor)


def doctor(args: argparse.Namespace) -> int:
    """Exit 5 under `--require contained` where this machine falls short of it, else 0."""
    from agent.operate.doctor import examine

    found = examine()
    if args.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        (sys.stdout if sys.stdout.isatty() else sys.stderr).write(_text(found))
    short = args.require == "contained" and not found["contained"]
    return int(Exit.UNPROTECTED if short else Exit.OK)


def _text(found: dict[str, Any]) -> str:
    lines = ["enforcement points"]
    for point, said in found["points"].items():
        lines.append(f"  {point:8} {said['level']:9} {said['why']}")
        if "to_raise" in said:
            lines.append(f"  {'':8} {'':9} to raise it: {said['to_raise']}")
    lines.append(f"contained: {'yes' if found['contained'] else 'no'}")
    lines.append("mechanisms")
    for name, value in found["mechanisms"].items():
        lines.append(f"  {name}: {_shown(value)}")
    lines.append("not recorded (only the kernel sees it)")
    lines += [f"  {entry['point']}: {entry['what']}" for entry in found["unrecorded"]]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(value) or "none"
        case dict():
            return ", ".join(f"{name} by {by}" if by != "no" else f"{name} no" for name, by in value.items())
    return str(value)
