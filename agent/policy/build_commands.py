"""Command rules and exceptions from values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from agent.policy.build import Bench, examples, severity, wording
from agent.policy.build_egress import host_pattern
from agent.policy.commands import redirection
from agent.policy.credential_shapes import CREDENTIAL_WORD
from agent.policy.decision import Severity
from agent.policy.model import CommandMatch, CommandRule, HostRule, InDoubt, RuleException
from agent.policy.path_classes import CLASSES, named_class
from agent.policy.paths import is_normal
from agent.policy.program_names import GROUPS, program_fits
from agent.policy.rule_ids import is_reserved
from agent.policy.shape import Day, Record, Text, Value
from agent.policy.shorthand import ShorthandError, parse_shorthand
from agent.values import fields

_MARKS: Final = ("<fork-bomb>", "<reverse-shell>", "<sql>", "<mongo>", "<redis>")
"""What the analysis of a text reports as if it were a program (`agent.shell`)."""


def command_rule(bench: Bench, value: Value, rule_id: str) -> CommandRule | None:
    """One entry of `commands.deny`, None where it has a problem."""
    match = _shorthand(bench, value) if isinstance(value, Text) else _rule_match(bench, value)
    if match is None:
        return None
    reason, instead = wording(value)
    return CommandRule(
        id=rule_id,
        match=match,
        where=value.where,
        severity=severity(value, Severity.HIGH),
        reason=reason,
        instead=instead,
        examples=examples(value),
        tags=value.words("tags") if isinstance(value, Record) else (),
        unless_from_itself=isinstance(value, Record) and value.flag("unless_from_itself"),
        in_doubt=InDoubt(value.text("in_doubt") or InDoubt.UNVERIFIABLE)
        if isinstance(value, Record)
        else InDoubt.UNVERIFIABLE,
    )


def rule_exception(
    bench: Bench, value: Value, commands: Iterable[CommandRule], hosts: Iterable[HostRule]
) -> RuleException | None:
    """One entry of `exceptions`; it must name a deny rule of its own layer, and say what it lets pass in its terms."""
    if not isinstance(value, Record) or value.faulty:
        return None
    commands = tuple(commands)
    rule, expires = value.text("rule"), value.get("expires")
    about_command = rule in {command.id for command in commands}
    about_host = rule in {host.id for host in hosts}
    if not about_command and not about_host:
        _unknown_rule(bench, value, rule)
        return None
    if about_command and value.has("host"):
        bench.fault(value.place("host"), f"'{rule}' is a command rule", "say what passes with `match:`")
        return None
    if about_host and value.has("match"):
        bench.fault(value.place("match"), f"'{rule}' is a host rule", "say what passes with `host:`")
        return None
    inner = value.record("match")
    match = None if inner is None else command_match(bench, inner)
    if match is not None and _foreign_programs(match, [command for command in commands if command.id == rule]):
        fix = "name a program of the rule, or leave `program` to it"
        bench.fault(value.place("match"), f"'{rule}' is not about {', '.join(match.program)}: it can never apply", fix)
        return None
    text = value.get("host")
    host = host_pattern(bench, text) if isinstance(text, Text) else None
    if not isinstance(expires, Day) or (inner is not None and match is None) or (text is not None and host is None):
        return None
    return RuleException(
        rule=rule,
        match=match,
        host=host,
        owner=value.text("owner"),
        reason=value.text("reason"),
        expires=expires.value,
        where=value.where,
    )


def _foreign_programs(match: CommandMatch, rules: Sequence[CommandRule]) -> bool:
    """True where no program of the exception is one of the rule's (``mkfs.ext4`` is one of ``mkfs``)."""
    named = {program for rule in rules for program in rule.match.program}
    if not match.program or not named:
        return False
    pairs = ((given, program) for given in match.program for program in named)
    return not any(program_fits(one, other) or program_fits(other, one) for one, other in pairs)


_KEYS: Final = tuple(field.name for field in fields(CommandMatch))


def command_match(bench: Bench, record: Record) -> CommandMatch | None:
    """The match, None where it could never hold, or would always."""
    if record.faulty:
        return None
    before = len(bench.problems)
    for key, text in [(name, entry) for name in _KEYS for entry in record.texts(name)]:
        fault = _entry_fault(key, text.value)
        if fault is not None:
            bench.fault(text.where, f"the entry '{text.value}' can never match: {fault[0]}", fault[1])
    if not any(record.words(key) for key in _KEYS if key != "without"):
        bench.fault(record.where, "a match that looks at nothing fits every command", "name a program, or another key")
    if len(bench.problems) > before:
        return None
    return CommandMatch(**{key: record.words(key) for key in _KEYS})


def _entry_fault(key: str, entry: str) -> tuple[str, str] | None:
    """Why an entry can never match, and what would help."""
    match key:
        case "operands":
            return _operand_fault(entry)
        case "redirects":
            found = redirection(entry)
            return None if found is None else _operand_fault(found[1])
        case "program" | "piped_from" | "code_from" if entry.startswith("<") and entry not in (*GROUPS, *_MARKS):
            return "there is no such group of programs", f"the groups are: {', '.join(GROUPS)}"
        case "words" if entry.startswith("<") and entry.endswith(">") and entry != CREDENTIAL_WORD:
            return "there is no such kind of word", f"the only kind is {CREDENTIAL_WORD}"
    return None


def _rule_match(bench: Bench, value: Value) -> CommandMatch | None:
    inner = value.record("match") if isinstance(value, Record) else None
    return None if inner is None else command_match(bench, inner)


def _shorthand(bench: Bench, text: Text) -> CommandMatch | None:
    try:
        match = parse_shorthand(text.value)
    except ShorthandError as error:
        bench.fault(text.where, str(error), error.fix)
        return None
    for operand in match.operands:
        fault = _operand_fault(operand)
        if fault is not None:
            bench.fault(text.where, f"the operand '{operand}' can never match: {fault[0]}", fault[1])
            return None
    return match


def _operand_fault(pattern: str) -> tuple[str, str] | None:
    named = named_class(pattern)
    if named is not None:
        known = ", ".join(CLASSES)
        return None if named in CLASSES else ("there is no such class of paths", f"the classes are: {known}")
    if pattern.startswith("~") and pattern != "~" and not pattern.startswith("~/"):
        return "'~user' is not expanded", "write the directory itself, or ~/ for the session's home"
    if pattern.startswith("/") and pattern != "/" and not is_normal(pattern):
        return "operands are compared without '.', '..', '//' and trailing '/'", "write the path without them"
    return None


def _unknown_rule(bench: Bench, value: Record, rule: str) -> None:
    if is_reserved(rule):
        fix = "what the agent itself refuses has no exceptions; a default denial needs an allow"
    else:
        fix = "name a rule of egress.deny or commands.deny in the same directory"
    bench.fault(value.place("rule"), f"no deny rule of this layer has the id '{rule}'", fix)
