"""`parhelia-agent audit`: verify and watch the log.

Rules: `verify` exits 0 only where every line holds, 6 at the first break, 2 where there is nothing to read. What `tail`
prints came from the session (hosts, commands, paths): control, bidi and other invisible characters are escaped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from agent.exits import Exit
from agent.record.family import verify_family
from agent.record.follow import Follower
from agent.record.verify import UNSHOWN, Report
from agent.values import asdict

SHOWN = (
    "rule", "reason", "where", "cause", "measures", "evidence", "level", "change", "exit_status", "signal", "count",
    "lost", "pid", "exe",
)  # fmt: skip
"""The details that `tail` shows, in this order."""
_POLL_SECONDS = 0.25
_COLOURS = {"denied": "\x1b[31m", "error": "\x1b[33m", "success": "\x1b[32m"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb and its two parts."""
    parser = subparsers.add_parser("audit", help="verify and watch the audit log")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    check = parts.add_parser("verify", help="check the hash chain; exit 6 at the first break", epilog=UNSHOWN)
    check.add_argument("path", nargs="?", metavar="DIR", help="log directory or one file (default: PARHELIA_AUDIT_DIR)")
    check.add_argument("--json", action="store_true", help="one JSON document on stdout")
    check.set_defaults(func=_verify)
    tail = parts.add_parser("tail", help="show the last events")
    tail.add_argument("path", nargs="?", metavar="DIR", help="log directory (default: PARHELIA_AUDIT_DIR)")
    tail.add_argument("-n", "--lines", type=_count, default=10, metavar="N", help="how many (default: 10)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what is added, until interrupted")
    tail.add_argument("--json", action="store_true", help="the lines as JSON, in ASCII")
    tail.set_defaults(func=_tail)


def _verify(args: argparse.Namespace) -> int:
    path = _path(args.path)
    if path is None:
        return Exit.USAGE
    try:
        report, restored = verify_family(path)
    except OSError as error:
        return _unreadable(path, error)
    whole = all(each.ok for each in (report, *restored))
    if args.json:
        found = {**asdict(report), "restored": [{"ok": each.ok, **asdict(each)} for each in restored]}
        sys.stdout.write(json.dumps({"ok": whole, **found, "unshown": UNSHOWN}) + "\n")
    else:
        sys.stderr.write("".join(map(_summary, (report, *restored))))
    return Exit.OK if whole else Exit.AUDIT_BROKEN


def _summary(report: Report) -> str:
    where = visible(report.path)
    if report.broken is not None:
        found = report.broken
        place = f"{visible(found.file)}:{found.line}" + ("" if found.seq is None else f" (seq {found.seq})")
        return (
            f"{where}: BROKEN at {place}: {found.kind}: {visible(found.message)}\n"
            f"  {report.events} events before it hold"
            + (f", up to seq {report.last_seq}, hash {report.head}\n" if report.events else "\n")
        )
    lines = [
        f"{where}: ok: {report.events} events, seq {report.first_seq} to {report.last_seq}, "
        f"{len(report.files)} file(s), {report.boots} boot(s)",
        f"  stream {visible(report.stream)}, head {report.head}",
    ]
    if not report.anchored:
        lines.append("  begins inside a stream: its first link is taken on trust; verify the directory to check it")
    if report.gaps:
        lines.append(f"  {report.lost} event(s) could not be recorded, told by {report.gaps} audit.gap line(s)")
    if report.recovered:
        lines.append(f"  {report.recovered} recovery line(s) (audit.recovered)")
    return "\n".join([*lines, f"  note: {UNSHOWN}", ""])


def _tail(args: argparse.Namespace) -> int:
    path = _path(args.path)
    if path is None:
        return Exit.USAGE
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    follower = Follower(path)
    try:
        lines = follower.last(args.lines)
        while True:
            for line in lines:
                sys.stdout.write(_as_json(line) if args.json else shown(line, colour=colour))
                sys.stdout.write("\n")
            sys.stdout.flush()
            if not args.follow:
                return Exit.OK
            time.sleep(_POLL_SECONDS)
            lines = follower.more()
    except BrokenPipeError:
        raise
    except OSError as error:
        return _unreadable(path, error)
    finally:
        follower.close()


def shown(line: bytes, *, colour: bool = False) -> str:
    """One event for a person: time, result, type, resource, then who and why. A line that is no event is shown raw."""
    try:
        event: dict[str, Any] = orjson.loads(line)
        details = event["details"]
        result = str(event["result"])
        words = [str(event["timestamp"]), f"{result:<7}", f"{details['event_type']:<22}", str(event["resource"])]
        extra = {"actor": event["actor"]} | {key: details[key] for key in SHOWN if key in details}
        extra["seq"] = details["seq"]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return "not an event: " + visible(line.decode("utf-8", "backslashreplace").rstrip("\n"))
    words += [f"{key}={_word(value)}" for key, value in extra.items()]
    words = [visible(word) for word in words]
    if colour and result in _COLOURS:
        words[1] = f"{_COLOURS[result]}{words[1]}\x1b[0m"
    return "  ".join(words)


def visible(text: str) -> str:
    """`text` with every character that a terminal would obey, hide or reorder by spelled as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _word(value: object) -> str:
    return value if isinstance(value, str) and " " not in value and value else json.dumps(value, ensure_ascii=False)


def _as_json(line: bytes) -> str:
    try:
        return json.dumps(orjson.loads(line))
    except orjson.JSONDecodeError:
        return json.dumps({"error": "not an event", "line": line.decode("utf-8", "backslashreplace").rstrip("\n")})


def _path(given: str | None) -> Path | None:
    chosen = given or os.environ.get("PARHELIA_AUDIT_DIR")
    if chosen:
        return Path(chosen)
    sys.stderr.write("audit: which log? Give its directory, or set PARHELIA_AUDIT_DIR\n")
    return None


def _unreadable(path: Path, error: OSError) -> int:
    sys.stderr.write(f"audit: {visible(str(error.filename or path))}: {error.strerror or error}\n")
    return Exit.USAGE


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)
