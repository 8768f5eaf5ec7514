"""Command rules, and what was understood of a command, in words: for `check command --explain` and `policy explain`.

Rules kept here: text that came from outside (a command's words) is escaped before it is shown.
"""

from __future__ import annotations

from typing import Final

from agent.policy.commands import Fit
from agent.policy.decide_commands import RuleFit
from agent.policy.model import CommandMatch, InDoubt
from agent.policy.request import UNKNOWN, CommandRequest, SimpleCommand
from agent.policy.words import shown

type Json = str | int | bool | list["Json"] | dict[str, "Json"] | None

_LONGEST: Final = 200
_FITS: Final = {Fit.YES: "describes it", Fit.MAYBE: "may describe it, which is known only when it runs"}


def of_match(match: CommandMatch) -> str:
    """What the rule looks at, in one line; long lists are cut."""
    words = ["|".join(match.program[:4]) + ("|…" if len(match.program) > 4 else "")] if match.program else []
    words += match.subcommand
    words += [f"[{option}]" for option in match.options]
    words += [f"without [{option}]" for option in match.without]
    words += [_some(match.operands), _some(match.words), _some(match.redirects), _some(match.environment)]
    words += [f"reading from {_some(match.piped_from)}"] if match.piped_from else []
    words += [f"executing what {_some(match.code_from)} wrote"] if match.code_from else []
    return " ".join(word for word in words if word)


def of_command(command: SimpleCommand) -> str:
    """The command as it would run, with what stands around it."""
    words = [f"{name}={value}" for name, value in command.assignments]
    words += command.argv
    words += [f"{operator} {target}" for operator, target in command.redirects]
    text = " ".join(word.replace(UNKNOWN, "?") for word in words) or "(a redirection)"
    notes = [f"in {command.cwd}" if command.cwd is not None else "in an unknown directory"]
    notes += [f"behind {' '.join(command.wrappers)}"] if command.wrappers else []
    notes += [f"reads what {' | '.join(command.piped_from)} writes"] if command.piped_from else []
    notes += [f"executes what {' | '.join(command.code_from)} writes"] if command.code_from else []
    return f"{_cut(text)}   ({', '.join(notes)})"


def explained(request: CommandRequest, found: tuple[RuleFit, ...], decided: str) -> list[str]:
    """The tree of what was understood, every rule that fits with the command that it fits, and the one that decided."""
    lines = ["understood"]
    lines += [f"  {'  ' * entry.depth}{entry.what}: {_cut(entry.text)}" for entry in request.understood]
    lines += ["commands"] if request.commands else ["commands: none"]
    lines += [f"  {number}. {of_command(command)}" for number, command in enumerate(request.commands, 1)]
    if request.unverifiable is not None:
        lines.append(f"not known before it runs: {shown(request.unverifiable)}")
    lines.append("rules that fit" if found else "rules that fit: none")
    for entry in found:
        mark = "=>" if entry.rule.id == decided and entry.fit is Fit.YES and entry.excepted is None else "  "
        lines.append(f"{mark} {entry.rule.id} ({entry.rule.where}) {_FITS[entry.fit]}: command {entry.command + 1}")
        if entry.excepted is not None:
            lines.append(f"     lets it pass: the exception of {entry.excepted.owner} ({entry.excepted.where})")
        elif entry.fit is Fit.MAYBE and entry.rule.in_doubt is InDoubt.ALLOW:
            lines.append("     lets it pass: the rule says in_doubt: allow")
    return lines


def as_json(request: CommandRequest, found: tuple[RuleFit, ...]) -> dict[str, Json]:
    """The same for programs."""
    return {
        "understood": [
            {"depth": entry.depth, "what": entry.what, "text": _cut(entry.text), "command": entry.command}
            for entry in request.understood
        ],
        "commands": [_command(command) for command in request.commands],
        "unverifiable": None if request.unverifiable is None else shown(request.unverifiable),
        "rules": [
            {
                "rule": entry.rule.id,
                "where": str(entry.rule.where),
                "command": entry.command,
                "fit": entry.fit.name.lower(),
                "excepted": None if entry.excepted is None else str(entry.excepted.where),
            }
            for entry in found
        ],
    }


def _command(command: SimpleCommand) -> Json:
    return {
        "program": command.program,
        "argv": [word.replace(UNKNOWN, "?") for word in command.argv],
        "cwd": command.cwd,
        "environment": [[name, value.replace(UNKNOWN, "?")] for name, value in command.assignments],
        "redirects": [[operator, target.replace(UNKNOWN, "?")] for operator, target in command.redirects],
        "behind": list(command.wrappers),
        "piped_from": list(command.piped_from),
        "code_from": list(command.code_from),
    }


def _some(entries: tuple[str, ...]) -> str:
    return " or ".join(entries[:4]) + (" or …" if len(entries) > 4 else "")


def _cut(text: str) -> str:
    text = text.replace(UNKNOWN, "?")
    return shown(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
