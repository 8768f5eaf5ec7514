"""What a command writes to its standard output, where that is plain from its words and what it reads.

Rules: a text is only known where the program's manual leaves no other; whether it is known or not, it says which
programs it came from. Sources: bash(1) echo and printf, cat(1), tee(1), which(1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell.filters import filtered
from agent.shell.finding import find_targets
from agent.shell.pieces import ANYTHING, NOTHING, Word, makers, merged
from agent.shell.steps import basename

_DEAF = frozenset(
    ("echo", "printf", "pwd", "which", "type", "find", "true", "false", ":", "date", "ls", "curl", "wget")
)
"""Programs that take nothing over from their standard input."""
_HANDS_OVER = frozenset(("echo", "printf", "cat", "tee"))
_MAX_REPEATS = 64


def printed(
    program: str,
    words: Sequence[Word],
    stdin: Word | None,
    inner: Sequence[Word],
    content: Callable[[Word], Word | None],
) -> Word:
    """The output of `words` (base name `program`) that reads `stdin`, where the commands that it ran wrote `inner`."""
    word = _text(program, words, stdin, inner, content)
    made_by = word.made_by
    if stdin is not None and program not in _DEAF:
        made_by = merged(stdin.made_by, made_by)
    made_by = merged(made_by, makers(inner))
    if program in _HANDS_OVER:
        made_by = merged(made_by, makers(words[1:]))
    return Word(word.text, word.glob, merged(made_by, (program,)))


def _text(
    program: str,
    words: Sequence[Word],
    stdin: Word | None,
    inner: Sequence[Word],
    content: Callable[[Word], Word | None],
) -> Word:
    given = words[1:]
    if inner:
        return inner[0] if len(inner) == 1 and program not in _CHANGES else ANYTHING
    match program:
        case "echo":
            return print_echo(given)
        case "printf":
            return print_formatted(given)
        case "cat":
            return _concatenated_files(given, stdin, content)
        case "tee" if stdin is not None:
            return stdin
        case "find":
            targets = find_targets(words)
            return Word("\n".join(target.text for target in targets) + "\n", any(target.glob for target in targets))
        case "which" if len(given) == 1 and given[0].known:
            return Word(f"/usr/bin/{basename(given[0].text)}\n")
        case "command" if len(given) == 2 and given[0].text == "-v" and given[1].known:
            return Word(f"/usr/bin/{basename(given[1].text)}\n")
    return filtered(program, given, stdin, content)


_CHANGES = frozenset(
    ("watch", "script", "xargs", "parallel", "find", "ssh", "strace", "ltrace", "unbuffer", "git", "tar")
)
"""Programs whose own output is not just that of what they run."""


def _concatenated_files(given: Sequence[Word], stdin: Word | None, content: Callable[[Word], Word | None]) -> Word:
    operands = [word for word in given if not word.text.startswith("-") or word.text == "-"]
    if any(len(word.text) > 1 and word.text != "-u" for word in given if word not in operands):
        return ANYTHING
    parts: list[Word] = []
    for word in operands or [Word("-")]:
        part = stdin if word.text == "-" else content(word)
        if part is None:
            return Word(UNKNOWN, made_by=makers(parts))
        parts.append(part)
    return Word("".join(part.text for part in parts), any(part.glob for part in parts), makers(parts))


def print_echo(given: Sequence[Word]) -> Word:
    """What echo writes. dash decodes backslashes without ``-e``, bash does not: then the text is not known."""
    newline, escapes, index = "\n", False, 0
    while index < len(given) and re.fullmatch(r"-[neE]+", given[index].text):
        newline = "" if "n" in given[index].text else newline
        escapes = ("e" in given[index].text) or (escapes and "E" not in given[index].text)
        index += 1
    text = " ".join(word.text for word in given[index:])
    if escapes:
        text = _backslashes(text)
    elif index == 0 and _backslashes(text) != text:
        text = UNKNOWN
    return Word(text + newline, any(word.glob for word in given))


def print_formatted(given: Sequence[Word]) -> Word:
    """What printf writes (bash(1))."""
    if given and given[0].text == "--":
        given = given[1:]
    if not given:
        return NOTHING
    form = _backslashes(given[0].text)
    values = [word.text for word in given[1:]]
    parts = _DIRECTIVE.split(form)
    if UNKNOWN in form or any("%" in text.replace("%%", "") for text in parts[::2]) or UNKNOWN in values:
        return ANYTHING
    directives = parts[1::2]
    slots = len(directives)
    written: list[str] = []
    for turn in range(min(_MAX_REPEATS, max(1, -(-len(values) // slots) if slots else 1))):
        taken = iter(values[turn * slots : (turn + 1) * slots])
        for index, part in enumerate(parts):
            text = part.replace("%%", "%") if index % 2 == 0 else _formatted(part, next(taken, None))
            if text is None:
                return ANYTHING
            written.append(text)
    return Word("".join(written), any(word.glob for word in given[1:]))


_DIRECTIVE = expression(r"((?<!%)(?:%%)*%[-0]?\d{0,3}[sbqdiuoxXc])")


def _formatted(directive: str, value: str | None) -> str | None:
    lead, directive = directive[: -len(directive.lstrip("%"))][:-1].replace("%%", "%"), "%" + directive.lstrip("%")
    letter, text = directive[-1], value or ""
    if letter in "diuoxX":
        number = _integer(text)
        return None if number is None or UNKNOWN in text else lead + (directive.replace("u", "d") % number)
    if letter == "q" and re.fullmatch(r"[\w./:=@%+-]+", text) is None:
        return None
    text = _backslashes(text) if letter == "b" else text[:1] if letter == "c" else text
    return lead + (f"{directive[:-1]}s" % text)


def _integer(text: str) -> int | None:
    """A number as printf reads it: ``'c`` is the character's code."""
    if text[:1] in ("'", '"'):
        return ord(text[1]) if len(text) > 1 else 0
    try:
        return int(text or "0", 8 if re.fullmatch(r"-?0[0-7]+", text) else 0)
    except ValueError:
        return None


_ESCAPES = expression(r"\\(x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{1,4}|0?[0-7]{1,3}|[ntabrfv\\ecE\"'])")
_NAMED = {"n": "\n", "t": "\t", "a": "", "b": "", "r": "", "f": "", "v": "", "\\": "\\", "e": "", "c": "", "E": ""}


def _decoded(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "xu":
        number = int(code[1:], 16)
    elif code[0] in "01234567":
        number = int(code, 8) & 0xFF
    else:
        return _NAMED.get(code, code)
    return chr(number) if number and not 0xD800 <= number < 0xE000 else ""


def _backslashes(text: str) -> str:
    return _ESCAPES.sub(_decoded, text) if "\\" in text else text
