"""YAML text to PyYAML's nodes, and not one step further: no object is ever constructed from a policy.

Rules kept here: what makes a policy say something else than its reader sees is refused with its place (anchors,
aliases, tags, directives, several documents); nesting and size are bounded before anything recurses; nothing but a
`Problem` comes out of any text.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from agent.expressions import expression
from agent.policy.model import Where
from agent.policy.problem import Problem

MAX_CHARACTERS: Final = 1024 * 1024
MAX_DEPTH: Final = 16

_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_HINTS: Final = (
    (expression(r"^\s*(?:-\s+|[\w.]+:\s+)\*"), "put a value that starts with '*' in quotes: \"*.example.com\""),
    (expression(r"^\s*\t|^ *\t"), "indent with spaces, not with tabs"),
    (expression(r":\s+[^\"'#{\[|>]*:\s"), "put a text that contains ': ' in quotes"),
    (expression(r"(?:-|:)\s+[%@`]"), "put a value that starts with this character in quotes"),
)


def compose(file: str, text: str, problems: list[Problem]) -> yaml.Node | None:
    """The root node of the one document, None where there is none or where problems were found (and added)."""
    before = len(problems)
    fault = _unreadable(text)
    if fault is not None:
        problems.append(Problem(Where(file, 1, 1), *fault))
        return None
    try:
        _inspect(file, text, problems)
        if len(problems) > before:
            return None
        return yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        problems.append(_marked(file, text, error))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the readers raise the latter two on odd escapes
        problems.append(Problem(_reader_place(file, text, error), _reader_message(error), "remove the character"))
    return None


def place(file: str, mark: Any) -> Where:
    """Where a mark of PyYAML (0-based) points."""
    return Where(file, mark.line + 1, mark.column + 1)


def _unreadable(text: str) -> tuple[str, str] | None:
    if len(text) > MAX_CHARACTERS:
        return f"the file is longer than {MAX_CHARACTERS} characters", "split it: all files of a directory add up"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the file is not valid UTF-8", "save it as UTF-8"
    return None


def _inspect(file: str, text: str, problems: list[Problem]) -> None:
    """Walk the events, which unlike nodes still show anchors, aliases, tags and documents."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            where = place(file, event.start_mark)
            if documents == 2:
                problems.append(Problem(where, "a second document in one file", "move it into a file of its own"))
            if event.version or event.tags:
                problems.append(Problem(where, "a YAML directive", "remove the line that starts with '%'"))
        elif isinstance(event, yaml.AliasEvent):
            alias = f"the alias *{event.anchor}"
            problems.append(Problem(place(file, event.start_mark), alias, _alias_fix(event.anchor)))
        elif isinstance(event, yaml.NodeEvent) and (event.anchor, getattr(event, "tag", None)) != (None, None):
            _refuse_properties(event, place(file, event.start_mark), problems)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                deep = f"nested more than {MAX_DEPTH} levels deep"
                problems.append(Problem(place(file, event.start_mark), deep, "a policy has at most seven"))
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_properties(event: Any, where: Where, problems: list[Problem]) -> None:
    if event.anchor is not None:
        problems.append(Problem(where, f"the anchor &{event.anchor}", "write the value out where it is used"))
    if event.tag is not None:
        problems.append(Problem(where, f"the tag {event.tag}", "remove it; quotes make a text, no quotes a number"))


def _alias_fix(name: str | None) -> str:
    return f'write the value out, or put "*{name}" in quotes if it is meant as text'


def _marked(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = place(file, mark) if mark is not None else Where(file, 1, 1)
    message = " ".join(part for part in (error.context, error.problem) if part) or "this is no YAML"
    if error.context_mark is not None and error.context_mark.line + 1 != where.line:
        message += f" (begun in line {error.context_mark.line + 1})"
    lines = text.splitlines()
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    fix = next(
        (hint for pattern, hint in _HINTS if pattern.search(line)), "check quotes, brackets and indentation here"
    )
    return Problem(where, f"not valid YAML: {message}", fix)


def _reader_place(file: str, text: str, error: Exception) -> Where:
    position = getattr(error, "position", None)
    if not isinstance(position, int):
        return Where(file, 1, 1)
    before = text[:position]
    return Where(file, before.count("\n") + 1, position - before.rfind("\n") if "\n" in before else position + 1)


def _reader_message(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return f"not valid YAML: {reason if isinstance(reason, str) else 'a character that YAML does not allow'}"
