"""`check`: asks the policy and explains the answer; enforces nothing, records nothing.

`check command TEXT`, `check egress URL`, `check path ACCESS PATH`, `check tool NAME` answer one question on stderr, or
with `--json` as one document on stdout. `check --jsonl` answers one question per line of stdin with one line on stdout,
in the same order; a malformed line is answered with its error and makes the exit code 2. Exit codes: 0 allowed, 3
denied or unverifiable (the policy's verdict, observe mode included), 2 malformed, 4 the policy is invalid.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from agent.cli import command_words, egress_words, questions
from agent.cli.policy_flags import add_policy_flag, load, show_problems
from agent.cli.questions import QuestionError, Surroundings, surroundings
from agent.daemon.base.spec import WORKDIR
from agent.exits import Exit
from agent.policy.decide import decide
from agent.policy.decide_commands import command_fits
from agent.policy.decision import Decision, Verdict
from agent.policy.model import Policy
from agent.policy.problem import PolicyError
from agent.policy.request import Access, CommandRequest, Request
from agent.policy.terms import terms

LONGEST_LINE: Final = 1 << 20
"""Bytes of one line of `--jsonl`; a longer one is malformed, and is read away in pieces."""

type Json = str | int | bool | None


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("check", help="ask the policy; enforces nothing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_common(parser, top=True)
    parser.add_argument("--jsonl", action="store_true", help="one JSON question per line of stdin")
    kinds = parser.add_subparsers(dest="kind", metavar="{command,egress,path,tool}")
    command = kinds.add_parser("command", help="may this shell text run?")
    command.add_argument("text", metavar="TEXT")
    command.add_argument("--cwd", metavar="D", help=f"where it would run (default {WORKDIR})")
    command.add_argument(
        "--explain", action="store_true", help="what was understood of it, every rule that fits, the one that decided"
    )
    egress = kinds.add_parser("egress", help="may this be reached?")
    egress.add_argument("url", metavar="URL")
    egress.add_argument("--method", metavar="M", help="HTTP method (default GET)")
    egress.add_argument(
        "--header", metavar="'NAME: VALUE'", action="append", default=[], help="a header field (repeatable)"
    )
    path = kinds.add_parser("path", help="may this path be accessed?")
    path.add_argument("access", choices=[str(access) for access in Access])
    path.add_argument("path", metavar="PATH")
    path.add_argument("--cwd", metavar="D", help="what a relative path is relative to")
    tool = kinds.add_parser("tool", help="may a coding agent call this tool?")
    tool.add_argument("tool", metavar="NAME")
    for kind in (command, egress, path, tool):
        _add_common(kind, top=False)
    parser.set_defaults(func=check)


def check(args: argparse.Namespace) -> int:
    """Answer; returns the exit code."""
    if args.jsonl == (args.kind is not None):
        print("parhelia: check needs one of command, egress, path, tool, or --jsonl", file=sys.stderr)
        return Exit.USAGE
    try:
        policy = load([*args.policy, *getattr(args, "inner_policy", [])])
    except PolicyError as error:
        show_problems(error, as_json=args.json)
        return Exit.POLICY_INVALID
    around = surroundings()
    if args.jsonl:
        return answer_lines(policy, around, sys.stdin.buffer, _print_line)
    try:
        request = _question(args, around)
        decision = decide(policy, request)
    except QuestionError as error:
        if args.json:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        else:
            print(f"parhelia: {error}", file=sys.stderr)
        return Exit.USAGE
    page: list[str] = []
    further: dict[str, command_words.Json] = {}
    if isinstance(request, CommandRequest) and args.explain:
        fits = command_fits(policy, request)
        page, further = command_words.explained(request, fits, decision.rule), command_words.as_json(request, fits)
    if args.json:
        print(json.dumps({**as_json(decision), **further}, ensure_ascii=False))
    else:
        print("\n".join([*page, explain(decision)]), file=sys.stderr)
    return Exit.OK if decision.verdict is Verdict.ALLOW else Exit.DENIED


def answer_lines(policy: Policy, around: Surroundings, lines: BinaryIO, write: Callable[[str], None]) -> int:
    """`--jsonl`: one answer per line, in order. Returns 2 where a line was malformed, else 0."""
    malformed = False
    for line in _lines(lines):
        name: Json = None
        try:
            value = _parse(line)
            name = _name(value)
            decision = decide(policy, questions.from_json(around, value))
        except QuestionError as error:
            malformed = True
            write(json.dumps({"id": name, "error": str(error)}, ensure_ascii=True))
            continue
        write(json.dumps({"id": name, **as_json(decision)}, ensure_ascii=True))
    return Exit.USAGE if malformed else Exit.OK


def as_json(decision: Decision) -> dict[str, Json]:
    """The contract's fields; `enforced` is added where the policy only observes."""
    answer: dict[str, Json] = {
        "verdict": str(decision.verdict),
        "rule": decision.rule,
        "reason": decision.reason,
        "where": decision.where,
        "instead": decision.instead,
    }
    if not decision.enforced:
        answer["enforced"] = False
    return answer


def explain(decision: Decision) -> str:
    """The answer for a person."""
    place = f" ({decision.where})" if decision.where is not None else ""
    lines = [f"{decision.verdict}: {decision.rule}{place}", f"  {decision.reason}"]
    if decision.instead:
        lines.append(f"  instead: {decision.instead}")
    if decision.inspect:
        lines.append("  each request is decided again (the connection is intercepted)")
    lines += [f"  {line}" for line in egress_words.of_terms(terms(decision))]
    if not decision.enforced:
        lines.append("  observe mode: it is recorded and let through")
    return "\n".join(lines)


def _question(args: argparse.Namespace, around: Surroundings) -> Request:
    match args.kind:
        case "command":
            return questions.command(around, _utf8(args.text), args.cwd)
        case "egress":
            headers = tuple(questions.header_of(text) for text in args.header)
            return questions.egress(around, questions.target_of(args.url), args.method, headers)
        case "tool":
            return questions.tool(around, _utf8(args.tool))
        case _:
            return questions.path(around, args.access, args.path, args.cwd)


def _add_common(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """`--policy` and `--json` before or after the kind (a sub-parser's default would overwrite what came before)."""
    if top:
        add_policy_flag(parser)
        parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    else:
        parser.add_argument(
            "--policy",
            action="append",
            default=argparse.SUPPRESS,
            dest="inner_policy",
            metavar="DIR",
            help="policy layer",
        )
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document on stdout"
        )


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their newline; one that is too long comes as its first `LONGEST_LINE` + 1 bytes."""
    while True:
        line = stream.readline(LONGEST_LINE + 1)
        if not line:
            return
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE + 1)
        yield line.removesuffix(b"\n")


def _parse(line: bytes) -> object:
    if len(line) > LONGEST_LINE:
        raise QuestionError(f"the line is longer than {LONGEST_LINE} bytes")
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except QuestionError:
        raise
    except json.JSONDecodeError as error:
        raise QuestionError(f"the line is no JSON: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise QuestionError(f"the line is not UTF-8 at byte {error.start + 1}") from error
    except ValueError as error:  # int() refuses thousands of digits
        raise QuestionError("the line holds a number that is too long") from error
    except RecursionError:
        raise QuestionError("the line is nested too deeply") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise QuestionError("a key is given twice")
    return found


def _no_constant(word: str) -> None:
    raise QuestionError(f"the line is no JSON: {word} is no value of JSON")


def _name(value: object) -> Json:
    """The line's id, echoed as it came."""
    name = value.get("id") if isinstance(value, dict) else None
    if isinstance(name, (dict, list, float)):
        raise QuestionError("id must be a text or a whole number")
    return name


def _utf8(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise QuestionError("the text is not UTF-8") from None
    return text


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
