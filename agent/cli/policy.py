"""`policy`: authoring. `lint` checks a policy and names every problem, `schema` prints the JSON Schema of policy files,
`explain` prints what is in force: the rules of every layer, and what a session may write and read in the end.

Exit codes: 0 fine, 4 the policy is invalid.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

from agent.cli import command_words, detector_words, egress_words
from agent.cli.policy_flags import add_policy_flag, load, show_problems
from agent.cli.questions import Surroundings, surroundings
from agent.exits import Exit
from agent.policy.build_trust import subject
from agent.policy.egress_match import intercepted
from agent.policy.grants import DEVICES, Grants, path_grants
from agent.policy.model import CommandRule, EgressSection, HostRule, Layer, PathRule, Policy
from agent.policy.problem import PolicyError
from agent.policy.self_protection import RULES
from agent.policy.tool_rules import ToolRule
from agent.values import asdict


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("policy", help="write and review policies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", metavar="{lint,schema,explain}", required=True)
    checked = actions.add_parser("lint", help="check a policy: every problem with file:line:column and the fix")
    checked.add_argument("directories", nargs="*", metavar="DIR", help="policy layers, as with --policy")
    checked.set_defaults(func=lint)
    printed = actions.add_parser("schema", help="print the JSON Schema of policy files")
    printed.set_defaults(func=schema)
    explained = actions.add_parser("explain", help="print the policy in force and the effective grants")
    explained.add_argument(
        "topic",
        nargs="?",
        choices=["paths"],
        help="paths: grants with their origin, and what holds protected places here",
    )
    explained.set_defaults(func=explain)
    for action in (checked, explained):
        add_policy_flag(action)
        action.add_argument("--json", action="store_true", help="one JSON document on stdout")


def lint(args: argparse.Namespace) -> int:
    """0 where the policy would be accepted."""
    try:
        policy = load([*args.policy, *args.directories])
    except PolicyError as error:
        show_problems(error, as_json=args.json)
        return Exit.POLICY_INVALID
    warnings = [*policy.warnings, *_expired(policy, datetime.now(UTC).date())]
    if args.json:
        answer = {"valid": True, "digest": policy.digest, "warnings": warnings, "problems": []}
        print(json.dumps(answer, ensure_ascii=False))
        return Exit.OK
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    rules = sum(len(_rules(layer)) for layer in policy.layers)
    layers = f"{len(policy.layers)} layer{'s' if len(policy.layers) != 1 else ''}"
    print(f"fine: {rules} rules in {layers}, digest {policy.digest}", file=sys.stderr)
    return Exit.OK


def _expired(policy: Policy, today: date) -> Iterator[str]:
    """Exceptions that no longer hold; the loader has no clock."""
    for layer in policy.layers:
        for exception in layer.exceptions:
            if exception.expires < today:
                yield f"{exception.where}: the exception of {exception.rule} ended on {exception.expires}; remove it"


def schema(args: argparse.Namespace) -> int:
    """Print the schema on stdout."""
    from agent.policy.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return Exit.OK


def explain(args: argparse.Namespace) -> int:
    """Print rules and grants: text, or with `--json` one document on stdout."""
    try:
        policy = load(args.policy)
    except PolicyError as error:
        show_problems(error, as_json=args.json)
        return Exit.POLICY_INVALID
    around = surroundings()
    if args.topic == "paths":
        return _explain_paths(policy, around, as_json=args.json)
    grants = path_grants(policy, home=around.home, tmpdir=around.tmpdir)
    if args.json:
        print(json.dumps(_document(policy, grants), indent=2, ensure_ascii=False))
    else:
        page = sys.stdout if sys.stdout.isatty() else sys.stderr  # a pager's choice is a terminal, a pipe wants --json
        print("\n".join(_page(policy, grants)), file=page)
    return Exit.OK


def _explain_paths(policy: Policy, around: Surroundings, *, as_json: bool) -> int:
    from agent.cli import explain_paths  # it probes the machine

    said = explain_paths.document(policy, around)
    if as_json:
        print(explain_paths.text(said))
    else:
        print("\n".join(explain_paths.page(said)), file=sys.stdout if sys.stdout.isatty() else sys.stderr)
    return Exit.OK


type Json = str | int | bool | list["Json"] | dict[str, "Json"] | None


def _document(policy: Policy, grants: Grants) -> dict[str, Json]:
    return {
        "digest": policy.digest,
        "warnings": list(policy.warnings),
        "layers": [_layer(layer) for layer in policy.layers],
        "built_in": [{"id": rule.id, "match": _command(rule), "reason": rule.reason} for rule in RULES],
        "grants": {
            "write": list(grants.write),
            "read": list(grants.read),
            "devices": list(DEVICES),
            "hidden": list(grants.agent_files),
        },
        "intercepted": list(intercepted(policy)),
        "audit": {"on_failure": str(policy.audit.on_failure), "durable": str(policy.audit.durable)},
    }


def _layer(layer: Layer) -> dict[str, Json]:
    modes: dict[str, Json] = {
        name: str(section.mode)
        for name, section in (
            ("egress", layer.egress),
            ("commands", layer.commands),
            ("paths", layer.paths),
            ("tools", layer.tools),
        )
        if section is not None
    }
    rules: list[Json] = [
        {"id": rule.id, "kind": kind, "what": what, "where": str(rule.where), "reason": rule.reason}
        for kind, what, rule in _rules(layer)
    ]
    exceptions: list[Json] = [
        {"rule": entry.rule, "owner": entry.owner, "reason": entry.reason, "expires": entry.expires.isoformat()}
        for entry in layer.exceptions
    ]
    secrets: list[Json] = [
        {"name": secret.name, "hosts": list(secret.hosts), "headers": list(secret.headers), "where": str(secret.where)}
        for secret in layer.secrets
    ]
    detectors: list[Json] = [
        {"id": each.id, "what": detector_words.of_detector(each), "where": str(each.where), "reason": each.reason}
        for each in layer.detect
    ]
    egress = layer.egress or EgressSection()
    return {
        "source": layer.source,
        "modes": modes,
        "rules": rules,
        "limits": {name: value for name, value in asdict(egress.limits).items() if value is not None},
        "trust": [subject(pem) for pem in egress.trust],
        "secrets": secrets,
        "exceptions": exceptions,
        "detect": detectors,
    }


def _page(policy: Policy, grants: Grants) -> list[str]:
    lines = [f"policy {policy.digest}"]
    for number, layer in enumerate(policy.layers, 1):
        lines += ["", f"layer {number}: {layer.source}"]
        lines += _table([(kind, what, rule.id, str(rule.where)) for kind, what, rule in _rules(layer)])
        lines += [f"  secret {egress_words.of_secret(secret)}" for secret in layer.secrets]
        lines += _session_limits(layer)
        lines += [f"  detect {detector_words.of_detector(detector)}" for detector in layer.detect]
        if layer.egress is not None:
            lines += [f"  egress trusts {subject(pem)}, besides the system's authorities" for pem in layer.egress.trust]
        for entry in layer.exceptions:
            lines.append(f"  exception from {entry.rule} until {entry.expires} ({entry.owner}): {entry.reason}")
        for name, section in (("egress", layer.egress), ("paths", layer.paths)):
            if section is None:
                said = "allows nothing" if number == 1 else "is neutral here"
                lines.append(f"  no section {name}: it {said}")
    hosts = intercepted(policy)
    if hosts:
        lines += ["", "hosts whose TLS is intercepted", *(f"  {host}" for host in sorted(hosts))]
    lines += ["", "always refused (built in, no exceptions)"]
    lines += _table([("command", _command(rule), rule.id, "") for rule in RULES])
    lines += ["", "what a session may write (reading and executing included)"]
    lines += [*(f"  {path}" for path in grants.write), "  $TMPDIR, a directory made for each session"]
    lines += ["", "what it may read (executing included)", *(f"  {path}" for path in grants.read)]
    lines += ["", "devices every session has", "  " + " ".join(DEVICES)]
    if grants.agent_files:
        lines += ["", "the agent's own, inside granted trees and never granted", "  " + " ".join(grants.agent_files)]
    lines += [f"warning: {warning}" for warning in policy.warnings]
    return lines


def _session_limits(layer: Layer) -> list[str]:
    bounds = egress_words.of_limits(layer.egress.limits) if layer.egress is not None else ""
    return [f"  egress in all: {bounds}"] if bounds else []


def _rules(layer: Layer) -> list[tuple[str, str, HostRule | CommandRule | PathRule | ToolRule]]:
    """Every rule of the layer with its kind and what it is about."""
    found: list[tuple[str, str, HostRule | CommandRule | PathRule | ToolRule]] = []
    if layer.egress is not None:
        found += [("egress allow", egress_words.of_rule(rule), rule) for rule in layer.egress.allow]
        found += [("egress deny", egress_words.of_rule(rule), rule) for rule in layer.egress.deny]
    if layer.commands is not None:
        found += [("command deny", _command(rule), rule) for rule in layer.commands.deny]
    if layer.paths is not None:
        found += [("path write", rule.path, rule) for rule in layer.paths.write]
        found += [("path read", rule.path, rule) for rule in layer.paths.read]
        found += [("path protect", rule.path, rule) for rule in layer.paths.protect]
        found += [("path watch", rule.path, rule) for rule in layer.paths.watch]
        found += [("path sensitive", rule.path, rule) for rule in layer.paths.sensitive]
    if layer.tools is not None:
        found += [("tool allow", rule.tool, rule) for rule in layer.tools.allow or ()]
        found += [("tool deny", rule.tool, rule) for rule in layer.tools.deny]
    return found


def _command(rule: CommandRule) -> str:
    return command_words.of_match(rule.match)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))).rstrip()
        for row in rows
    ]
