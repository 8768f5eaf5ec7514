"""The arguments of a call in inline code: literals as text, lists of literals as tuples, anything else None.

Rules: what is partly known keeps its known part, the rest is UNKNOWN; everything is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.request import UNKNOWN
from agent.shell.code_names import LISTS
from agent.shell.code_tokens import Token

type Argument = str | tuple[str, ...] | None

_LONGEST_ARGUMENT = 400  # tokens
_MOST_ARGUMENTS = 64
_MOST_ITEMS = 256
_NESTED = 16


def arguments_at(tokens: Sequence[Token], start: int, *, bare: bool = False) -> list[Argument] | None:
    """The arguments from `tokens[start]` on; None where this is no call. `bare`: no bracket need open them."""
    if start >= len(tokens):
        return None
    opened = tokens[start].is_mark("(")
    if not opened and not bare and not tokens[start].is_text:
        return None
    position = start + opened
    if opened and position < len(tokens) and tokens[position].is_mark(")"):
        return []
    arguments: list[Argument] = []
    for _ in range(_MOST_ARGUMENTS):
        position, argument = _argument(tokens, position, 0)
        arguments.append(argument)
        if position >= len(tokens) or not tokens[position].is_mark(","):
            break
        position += 1
    return arguments


def _argument(tokens: Sequence[Token], position: int, depth: int) -> tuple[int, Argument]:
    """One argument and the position of the comma or bracket behind it."""
    if position + 1 < len(tokens) and tokens[position].kind == "name":
        after = tokens[position + 1]
        if after.is_mark("(") and tokens[position].text in LISTS:
            position += 1
        elif (after.is_mark("=") or after.is_mark(":")) and not (
            position + 2 < len(tokens) and tokens[position + 2].is_mark("=")
        ):
            position += 2  # a keyword
    first = tokens[position] if position < len(tokens) else None
    if first is not None and first.is_mark("{"):
        return _command_of(tokens, position, depth)
    if first is not None and first.kind == "other" and first.text in "[(" and depth < _NESTED:
        return _sequence(tokens, position, depth)
    return _scalar(tokens, position)


def _command_of(tokens: Sequence[Token], begin: int, depth: int) -> tuple[int, Argument]:
    """The command of ``{cmd: ["sh"]}`` or ``{args: ["-rf", "/"]}`` (Deno); None for another object."""
    found: Argument = None
    open_brackets, position = 0, begin
    while position < min(len(tokens), begin + _LONGEST_ARGUMENT):
        token = tokens[position]
        if token.kind == "other":
            open_brackets += (token.text in "([{") - (token.text in ")]}")
            if open_brackets == 0:
                return position + 1, found
        names_it = token.text in ("cmd", "args", "command") and token.kind == "name"
        if names_it and open_brackets == 1 and depth < _NESTED and position + 1 < len(tokens):
            found = _argument(tokens, position + 2, depth + 1)[1]
        position += 1
    return position, found


def _scalar(tokens: Sequence[Token], begin: int) -> tuple[int, Argument]:
    text: list[str] = []
    literal, depth, position = True, 0, begin
    while position < len(tokens):
        token = tokens[position]
        if position - begin > _LONGEST_ARGUMENT:
            return len(tokens), None
        if token.kind == "other":
            if depth == 0 and token.text in ",)];}\n":
                break
            depth += (token.text in "([{") - (token.text in ")]}")
        if token.is_text:
            text.append(token.text)
        elif not (token.kind == "other" and token.text in "+.") or depth:
            literal = False
            text.append(UNKNOWN)
        position += 1
    if position == begin:
        return position, None
    partly = any(part != UNKNOWN for part in text) and text[0] != UNKNOWN
    return position, "".join(text) if literal or partly else None


def _sequence(tokens: Sequence[Token], position: int, depth: int) -> tuple[int, Argument]:
    items: list[str] = []
    position += 1
    for _ in range(_MOST_ITEMS):
        if position >= len(tokens) or (tokens[position].kind == "other" and tokens[position].text in ")]"):
            break
        position, item = _argument(tokens, position, depth + 1)
        if isinstance(item, tuple):
            items += item
        else:
            items.append(UNKNOWN if item is None else item)
        if position < len(tokens) and tokens[position].text == ",":
            position += 1
    return position + 1, tuple(items)
