"""Inline code of interpreters: the obvious ways to run a program or delete a tree from it.

Rules: this is a tripwire, not a proof. Code that computes what it runs is bounded by the path guard and the egress
proxy, as any program is. Only calls outside string literals and comments count; a destructive or executing call whose
argument is not a literal is reported as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.policy.request import UNKNOWN


@dataclass(frozen=True, slots=True)
class RunsText:
    """The code hands this text to a shell."""

    text: str


@dataclass(frozen=True, slots=True)
class RunsArgv:
    """The code runs, or amounts to, this command."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunsCode:
    """The code evaluates this text as code of its own language."""

    code: str


@dataclass(frozen=True, slots=True)
class RunsUnknown:
    """The code runs something that it computes."""

    what: str


type Call = RunsText | RunsArgv | RunsCode | RunsUnknown

_COMMENT = {"python": "#", "ruby": "#", "perl": "#", "awk": "#", "php": "#", "node": "//", "lua": "--"}
_LEXER = re.compile(
    r"(?P<triple>[rbuRBU]{0,2}(?:\'\'\'.*?(?:\'\'\'|\Z)|\"\"\".*?(?:\"\"\"|\Z)))"
    r"|(?P<string>[rbufRBUF]{0,2}(?:'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)))"
    r"|(?P<tick>`(?:[^`\\]|\\.)*+(?:`|\\?\Z))"
    r"|(?P<name>[A-Za-z_$@][\w$]*(?:(?:\.|::|->)[A-Za-z_]\w*)*)"
    r"|(?P<number>\d[\w.]*)"
    r"|(?P<comment>\#[^\n]*|//[^\n]*|--[^\n]*|/\*.*?(?:\*/|\Z))"
    r"|(?P<space>\s+)"
    r"|(?P<other>.)",
    re.DOTALL,
)
"""Every alternative that can be left open ends at the end of the text too, so that no start is scanned twice."""

_QUOTE_LIKE = re.compile(r"(?:%x|qx|%w|%q|%Q|qq|q|qw)\s*([\[{(</|!])")
_CLOSING = {"[": "]", "{": "}", "(": ")", "<": ">"}

_SHELL_CALLS = frozenset(
    [
        "system",
        "popen",
        "popen2",
        "popen3",
        "popen4",
        "getoutput",
        "getstatusoutput",
        "execSync",
        "shell_exec",
        "passthru",
        "proc_open",
        "create_subprocess_shell",
        "capture2",
        "capture2e",
        "capture3",
        "capture",
    ]
)
_ARGV_CALLS = frozenset(
    [
        "run",
        "call",
        "check_call",
        "check_output",
        "Popen",
        "spawn",
        "spawnSync",
        "execFile",
        "execFileSync",
        "create_subprocess_exec",
        "pcntl_exec",
        "posix_spawn",
        "posix_spawnp",
        "execv",
        "execve",
        "execvp",
        "execvpe",
        "execl",
        "execle",
        "execlp",
        "execlpe",
        "spawnl",
        "spawnle",
        "spawnlp",
        "spawnlpe",
        "spawnv",
        "spawnve",
        "spawnvp",
        "spawnvpe",
    ]
)
_LONGEST_ARGUMENT = 400  # tokens
_FIRST_IS_MODE = frozenset(["spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe"])
_FIRST_IS_FILE = (
    frozenset(
        ["execv", "execve", "execvp", "execvpe", "execl", "execle", "execlp", "execlpe", "posix_spawn", "posix_spawnp"]
    )
    | _FIRST_IS_MODE
)
_TREE_CALLS = frozenset(
    [
        "rmtree",
        "rm_rf",
        "rm_r",
        "rm_f",
        "remove_entry",
        "remove_entry_secure",
        "remove_dir",
        "remove_tree",
        "removedirs",
        "rmSync",
        "rmdirSync",
        "rimraf",
        "rimrafSync",
        "removeSync",
        "emptyDirSync",
    ]
)
_FILE_CALLS = frozenset(["unlink", "remove", "unlinkSync", "rmdir"])
_EVAL_CALLS = frozenset(["eval", "exec", "instance_eval", "runInThisContext", "runInNewContext", "loadstring"])
_PREFIXED = frozenset(
    ["subprocess", "os", "commands", "pty", "child_process", "cp", "Open3", "Kernel", "Process", "IO", "asyncio", "sh"]
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def calls_in(code: str, language: str) -> Iterator[Call]:
    """Every call in `code` that runs or deletes something. `language`: python perl ruby node php lua awk."""
    tokens = list(_tokens(code, language))
    tokens = _without_aliases(tokens)
    for index, token in enumerate(tokens):
        if token.kind == "tick" and language in ("perl", "ruby", "php"):
            yield RunsText(token.text)
        elif token.kind == "name":
            yield from _call(tokens, index, language)
    if language == "awk":
        yield from _awk_pipes(tokens)


def _without_aliases(tokens: Sequence[_Token]) -> list[_Token]:
    """Python's ``import … as NAME``: the name is put back."""
    aliases: dict[str, str] = {}
    for index in range(1, len(tokens) - 1):
        before, after = tokens[index - 1], tokens[index + 1]
        if tokens[index].text == "as" and before.kind == after.kind == "name":
            aliases[after.text] = before.text
    if not aliases:
        return list(tokens)
    return [_Token(t.kind, aliases.get(t.text, t.text)) if t.kind == "name" else t for t in tokens]


def _call(tokens: Sequence[_Token], index: int, language: str) -> Iterator[Call]:
    path = re.split(r"\.|::|->", tokens[index].text)
    name, owner = path[-1], path[0] if len(path) > 1 else ""
    known = (_SHELL_CALLS, _ARGV_CALLS, _TREE_CALLS, _FILE_CALLS, _EVAL_CALLS)
    if name == "getattr" and language == "python":
        yield from _by_name(_arguments(tokens, index + 1))
    if not any(name in names for names in known):
        return
    arguments = _arguments(tokens, index + 1)
    if arguments is None:
        return
    if name in _EVAL_CALLS and not (name == "exec" and (language != "python" or owner)):
        yield from _evaluated(arguments, language)
    elif name in _TREE_CALLS:
        yield RunsArgv(("rm", "-r", "--", *(_texts(arguments[:1]) or (UNKNOWN,))))
    elif name in _FILE_CALLS:
        yield RunsArgv(("rm", "--", *(_texts(arguments[:1]) or (UNKNOWN,))))
    elif name in _SHELL_CALLS or name == "exec":
        yield from _shell_call(arguments)
    elif owner in _PREFIXED or name not in ("run", "call", "spawn") or "subprocess" in {t.text for t in tokens}:
        yield from _argv_call(name, arguments)


type _Argument = str | tuple[str, ...] | None


def _shell_call(arguments: Sequence[_Argument]) -> Iterator[Call]:
    literal = [argument for argument in arguments if isinstance(argument, str)]
    first = arguments[0] if arguments else None
    if isinstance(first, tuple):
        yield RunsArgv(first)
    elif first is None:
        yield RunsUnknown("inline code runs a command that it computes")
    elif len(literal) > 1 and len(literal) == len(arguments) and " " not in first:
        yield RunsArgv(tuple(literal))
    else:
        yield RunsText(first)


def _argv_call(name: str, arguments: Sequence[_Argument]) -> Iterator[Call]:
    given = list(arguments[1:] if name in _FIRST_IS_MODE else arguments)
    if name in _FIRST_IS_FILE and len(given) > 1:
        first, second = given[0], given[1]
        if isinstance(second, tuple):
            given = [(first if isinstance(first, str) else UNKNOWN, *second[1:])]
        else:
            given = [first, *given[2:]]
    first = given[0] if given else None
    if isinstance(first, tuple):
        yield RunsArgv(first)
    elif first is None:
        yield RunsUnknown("inline code runs a program that it computes")
    elif len(given) > 1 and isinstance(given[1], tuple):
        yield RunsArgv((first, *given[1]))
    elif len(given) > 1 and all(isinstance(argument, str) for argument in given):
        yield RunsArgv(tuple(argument for argument in given if isinstance(argument, str)))
    else:
        yield RunsText(first)


def _evaluated(arguments: Sequence[_Argument], language: str) -> Iterator[Call]:
    first = arguments[0] if arguments else None
    if isinstance(first, str) and UNKNOWN not in first:
        yield RunsCode(first)
    elif arguments or language != "ruby":
        yield RunsUnknown("inline code evaluates code that it computes")


def _by_name(arguments: Sequence[_Argument] | None) -> Iterator[Call]:
    name = arguments[1] if arguments is not None and len(arguments) > 1 else None
    if isinstance(name, str) and name in _SHELL_CALLS | _ARGV_CALLS | _TREE_CALLS | _EVAL_CALLS:
        yield RunsUnknown(f"inline code looks up {name} by its name")


def _texts(arguments: Sequence[_Argument]) -> tuple[str, ...]:
    found: list[str] = []
    for argument in arguments:
        found += (argument,) if isinstance(argument, str) else argument or (UNKNOWN,)
    return tuple(found)


def _awk_pipes(tokens: Sequence[_Token]) -> Iterator[Call]:
    """``print | "cmd"`` and ``"cmd" | getline`` (gawk(1))."""
    for index, token in enumerate(tokens):
        if token.text != "|" or token.kind != "other":
            continue
        before = tokens[index - 1] if index else None
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        if after is not None and after.kind == "string":
            yield RunsText(after.text)
        elif after is not None and after.text == "getline" and before is not None and before.kind == "string":
            yield RunsText(before.text)


def _arguments(tokens: Sequence[_Token], start: int) -> list[_Argument] | None:
    """The arguments from `tokens[start]` on: literals as text, lists of literals as tuples, anything else None.
    None as a whole where this is no call."""
    if start >= len(tokens):
        return None
    opened = tokens[start].text == "(" and tokens[start].kind == "other"
    if not opened and tokens[start].kind not in ("string", "triple"):
        return None
    position = start + opened
    arguments: list[_Argument] = []
    for _ in range(64):
        position, argument = _argument(tokens, position)
        arguments.append(argument)
        if position >= len(tokens) or tokens[position].text != "," or tokens[position].kind != "other":
            break
        position += 1
    return arguments


def _argument(tokens: Sequence[_Token], position: int) -> tuple[int, _Argument]:
    """One argument and the position of the comma or bracket behind it."""
    first = tokens[position] if position < len(tokens) else None
    if first is not None and first.kind == "other" and first.text in "[(":
        return _sequence(tokens, position)
    text: list[str] = []
    literal, depth, begin = True, 0, position
    while position < len(tokens):
        token = tokens[position]
        if position - begin > _LONGEST_ARGUMENT:
            return len(tokens), None
        if token.kind == "other":
            if depth == 0 and token.text in ",)];}\n":
                break
            depth += (token.text in "([{") - (token.text in ")]}")
        if token.kind in ("string", "triple"):
            text.append(token.text)
        elif not (token.kind == "other" and token.text in "+.") or depth:
            literal = False
            text.append(UNKNOWN)
        position += 1
    if position == begin:
        return position, None
    return position, "".join(text) if literal or (
        any(part != UNKNOWN for part in text) and text[0] != UNKNOWN
    ) else None


def _sequence(tokens: Sequence[_Token], position: int) -> tuple[int, _Argument]:
    items: list[str] = []
    position += 1
    for _ in range(256):
        if position >= len(tokens) or (tokens[position].kind == "other" and tokens[position].text in ")]"):
            break
        position, item = _argument(tokens, position)
        if isinstance(item, tuple):
            items += item
        else:
            items.append(UNKNOWN if item is None else item)
        if position < len(tokens) and tokens[position].text == ",":
            position += 1
    return position + 1, tuple(items)


def _tokens(code: str, language: str) -> Iterator[_Token]:
    """Literals with their text decoded, names, and single characters; comments and blanks left out."""
    position = 0
    comment = _COMMENT.get(language, "#")
    while position < len(code):
        quoted = _QUOTE_LIKE.match(code, position) if language in ("perl", "ruby") else None
        if quoted is not None and (position == 0 or not (code[position - 1].isalnum() or code[position - 1] in "_$@%")):
            end = code.find(_CLOSING.get(quoted[1], quoted[1]), quoted.end())
            end = len(code) if end < 0 else end
            kind = "tick" if "x" in quoted[0][:2] else "string"
            yield _Token(kind, _interpolated(code[quoted.end() : end], language))
            position = end + 1
            continue
        found = _LEXER.match(code, position)
        if found is None:
            break
        kind = found.lastgroup or "other"
        text = found[0]
        if kind == "comment" and not (text.startswith(comment) or text.startswith("/*")):
            kind, text = "other", text[0]
        position += len(text)
        if kind in ("string", "triple", "tick"):
            yield _literal(kind, text, language)
        elif kind not in ("space", "comment"):
            yield _Token(kind, text)


def _literal(kind: str, text: str, language: str) -> _Token:
    prefix = text[: min(text.find(quote) for quote in "'\"`" if quote in text)].lower()
    width = 3 if kind == "triple" else 1
    inner = text[len(prefix) + width : -width]
    quote = text[len(prefix)]
    if "r" not in prefix and "\\" in inner:
        inner = re.sub(r"\\(x[0-9A-Fa-f]{2}|[0-7]{3}|.)", _escape, inner, flags=re.DOTALL)
    if "f" in prefix and "{" in inner:
        inner = re.sub(r"\{[^{}]*\}", UNKNOWN, inner)
    elif quote in '"`' and language in ("perl", "ruby", "php", "node"):
        inner = _interpolated(inner, language)
    if kind == "tick" and language == "node":
        kind = "string"
    return _Token(kind, inner)


def _interpolated(text: str, language: str) -> str:
    if language in ("ruby", "node"):
        return re.sub(r"[#$]\{[^{}]*\}", UNKNOWN, text)
    return re.sub(r"[$@](?:\{[^{}]*\}|\w+)", UNKNOWN, text)


def _escape(match: re.Match[str]) -> str:
    text = match[1]
    if text[0] == "x" and len(text) == 3:
        return chr(int(text[1:], 16))
    if len(text) == 3:
        return chr(int(text, 8) & 0xFF)
    return {"n": "\n", "t": "\t", "r": "\r", "\n": ""}.get(text, text)
