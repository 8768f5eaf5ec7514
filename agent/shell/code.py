"""Inline code of interpreters: the obvious ways to run a program, delete, read or write a file from it.

Rules: this is a tripwire, not a proof. Code that computes what it runs is bounded by the path guard and the egress
proxy, as any program is. Only calls outside string literals and comments count; a destructive or executing call whose
argument is not a literal is reported as unknown; a read whose argument is not known may be of any literal of the code
that looks like a path. Code that opens a connection and runs a shell is a reverse shell.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell import code_names as names
from agent.shell.code_arguments import Argument, arguments_at
from agent.shell.code_calls import Call, Opens, RunsArgv, RunsCode, RunsText, RunsUnknown
from agent.shell.code_forms import applescript_calls, awk_pipes, lisp_calls, tcl_calls
from agent.shell.code_tokens import Token, tokens_of
from agent.shell.steps import REVERSE_SHELL, basename
from agent.shell.wrappers import SHELLS

_TICKS = ("perl", "ruby", "php", "julia")
_BARE = ("perl", "ruby")  # languages that call without brackets
_MOST_READ = 32  # literals that one unknown read may name


def calls_in(code: str, language: str, *, body: bool = False) -> Iterator[Call]:
    """Every call in `code` that runs, deletes, reads or writes something. `language`: python perl ruby node php lua awk
    r julia other. `body`: the code is a file's, whose reads are its own business."""
    other = _FORMS.get(language)
    if other is not None:
        yield from other(code)
        return
    if language == "python" and not body and _HANDED_ON.search(code):
        yield RunsUnknown("a function that runs or deletes something is handed on and not called by its name")
    tokens = tokens_of(code, language)
    reading = _Reading(tokens, language, body=body)
    runs: list[Call] = []
    for call in reading.calls():
        runs.append(call)
        yield call
    if (_connects(tokens) and any(_serves(call, body=body) for call in runs)) or _duplicates(tokens):
        yield RunsArgv((REVERSE_SHELL.text, language))


_HANDED_ON = expression(
    r"\b(?:os\.(?:system|popen|exec[lv]\w*|(?:posix_)?spawn\w*|remove|unlink|rmdir)|shutil\.rmtree|subprocess\.(?:run|call"
    r"|Popen|check_call|check_output|getoutput|getstatusoutput))(?=\s*(?:[,)\]}\n;]|$))|\bmethodcaller\("
)


def calls_of(code: str, language: str, *, body: bool = False) -> Iterable[Call]:
    """What `calls_in` says, of short code remembered: the same line of awk is run for file after file."""
    if len(code) <= _SHORT:
        with contextlib.suppress(RecursionError):  # the calls before the place where it is too deep count
            return _of_short(code, language, body)
    return calls_in(code, language, body=body)


@lru_cache(maxsize=128)
def _of_short(code: str, language: str, body: bool) -> tuple[Call, ...]:
    return tuple(calls_in(code, language, body=body))


_SHORT = 2048
"""Characters."""

_FORMS: Mapping[str, Callable[[str], Iterator[Call]]] = MappingProxyType(
    {"tcl": tcl_calls, "lisp": lisp_calls, "elisp": lisp_calls, "applescript": applescript_calls}
)


def _connects(tokens: Sequence[Token]) -> bool:
    for token in tokens:
        if token.text in names.CONNECTION_CALLS:
            return True
        if token.kind == "name" and not names.CONNECTIONS.isdisjoint(re.split(r"\.|::|->", token.text)):
            return True
        if token.is_text and names.CONNECTION_TEXTS.search(token.text):
            return True
    return False


def _duplicates(tokens: Sequence[Token]) -> bool:
    """dup2(2) onto standard input beside a connection."""
    found = any(t.kind == "name" and not names.DUPLICATES.isdisjoint(t.text.split(".")) for t in tokens)
    return found and _connects(tokens)


def _serves(call: Call, *, body: bool) -> bool:
    """Does it run a shell that reads what comes, or what it was told?"""
    match call:
        case RunsUnknown():
            return not body
        case RunsText(text):
            words = text.split()
        case RunsArgv(argv):
            words = list(argv)
        case _:
            return False
    if not words or UNKNOWN in words[0]:
        return not body
    program = basename(words[0])
    told = any(re.fullmatch(r"-\w*c", word) for word in words[1:-1])
    return (program in SHELLS and not told) or program in ("cmd.exe", "cmd", "powershell", "powershell.exe")


class _Reading:
    """One pass over the tokens of a code."""

    def __init__(self, tokens: Sequence[Token], language: str, *, body: bool) -> None:
        self.tokens = tokens
        self.language = language
        self.body = body
        self.runs = language != "node" or any(names.NODE_RUNNERS.search(token.text) for token in tokens)
        self.reads_any = False

    def calls(self) -> Iterator[Call]:
        for index, token in enumerate(self.tokens):
            if token.kind == "tick" and self.language in _TICKS:
                yield RunsText(token.text)
            elif token.kind == "name":
                for call in self._call(index):
                    if not self.body or not isinstance(call, Opens) or call.operator != "<":
                        yield call
        if self.language == "awk":
            yield from awk_pipes(self.tokens)
        if self.reads_any and not self.body:
            literals = dict.fromkeys(token.text for token in self.tokens if token.is_text)
            paths = [text for text in literals if names.PATH_LIKE.fullmatch(text)]
            yield from (Opens("<", path) for path in paths[:_MOST_READ])

    def _call(self, index: int) -> Iterator[Call]:
        path = re.split(r"\?\.|\.|::|->", self.tokens[index].text)
        name, owner = path[-1], path[-2] if len(path) > 1 else ""
        if not owner and index > 1 and self.tokens[index - 1].is_mark(":"):
            owner = self.tokens[index - 2].text  # Erlang, and Lua's methods
        name = _SAME.get((self.language, name), name)
        if name == "getattr" and self.language == "python":
            yield from _by_name(arguments_at(self.tokens, index + 1))
        if name not in _KNOWN or self._is_defined(index):
            return
        receiver = self._receiver(index)
        arguments = arguments_at(self.tokens, index + 1)
        if arguments is None:
            if not (self.language in _BARE and not owner and name in _BARE_CALLS and self._has_operand(index + 1)):
                return
            arguments = arguments_at(self.tokens, index + 1, bare=True) or [None]
        if name in names.EVAL_CALLS and self._evaluates(name, owner):
            yield from _evaluated(arguments, self.language)
        elif (found := _of_files(name, owner, arguments, receiver)) is not None:
            self.reads_any |= Opens("<", "") in found
            yield from (call for call in found if call != Opens("<", ""))
        elif name in names.SHELL_CALLS or name in ("exec", "execute", "cmd"):
            yield from self._shell_call(name, owner, arguments, receiver)
        elif name in names.ARGV_CALLS and self.runs and self._runs_programs(name, owner):
            yield from _argv_call(name, arguments)

    def _is_defined(self, index: int) -> bool:
        """``def system(``, ``sub run {``, ``system: 1``."""
        before = self.tokens[index - 1].text if index else ""
        return before in ("def", "sub", "function", "class", "import")

    def _receiver(self, index: int) -> str | None:
        """The literal in front of ``.name(``."""
        before = self.tokens[index - 2 : index]
        if len(before) == 2 and before[1].is_mark(".") and before[0].is_text:
            return before[0].text
        return None

    def _has_operand(self, index: int) -> bool:
        token = self.tokens[index] if index < len(self.tokens) else None
        return (
            token is not None and token.kind == "name" and token.text not in ("if", "unless", "and", "or", "do", "=>")
        )

    def _evaluates(self, name: str, owner: str) -> bool:
        if name == "exec":
            return self.language == "python" and not owner
        if name == "load":
            return self.language in ("lua", "php")
        return True

    def _runs_programs(self, name: str, owner: str) -> bool:
        bound = name in ("run", "call", "spawn", "Command")
        imported = any(token.text in ("subprocess", "pty", "child_process") for token in self.tokens)
        return owner in names.PREFIXED or not bound or imported or self.language in ("julia", "other")

    def _shell_call(self, name: str, owner: str, arguments: Sequence[Argument], receiver: str | None) -> Iterator[Call]:
        if not self.runs and name not in ("system", "execSync", "popen"):
            return
        if name == "execute":
            if receiver is not None:
                yield RunsText(receiver)
            elif self.language == "lua" or owner == "os":
                yield from _shell_call(arguments)
        elif name != "cmd":
            yield from _shell_call(arguments)
        elif self.language == "other" and owner in ("os", "System"):
            yield from _argv_call(name, arguments) if len(arguments) > 1 else _shell_call(arguments)


_KNOWN = (
    names.SHELL_CALLS
    | names.ARGV_CALLS
    | names.TREE_CALLS
    | names.FILE_CALLS
    | names.OWNED_FILE_CALLS
    | names.EVAL_CALLS
    | names.READ_CALLS
    | names.WRITE_CALLS
    | names.OPEN_CALLS
    | names.OWNED_READ_CALLS
    | names.OWNED_WRITE_CALLS
    | names.MOVE_CALLS
    | names.COPY_CALLS
    | {"execute", "cmd"}
)
_BARE_CALLS = frozenset(("system", "exec", "unlink", "rmtree", "spawn", "popen", "open"))
_SAME = MappingProxyType({("r", "unlink"): "rmtree", ("julia", "rm"): "rmtree"})
"""Functions that delete a tree under the name of one that deletes a file."""


def _of_files(name: str, owner: str, arguments: Sequence[Argument], receiver: str | None) -> list[Call] | None:
    """What the call does with files; None where it is none of these calls. ``Opens("<", "")``: reads what is not
    known."""
    first = receiver if receiver is not None else next(iter(arguments), None)
    text = first if isinstance(first, str) else None
    known = _texts([first]) if arguments or receiver is not None else (UNKNOWN,)
    owned = owner in names.OWNERS or receiver is not None
    owner_means_files = owner in names.OWNERS or (receiver is not None and name == "rename")
    if name in names.TREE_CALLS:
        return [RunsArgv(("rm", "-rf", "--", *known))]
    if name in names.FILE_CALLS or (name in names.OWNED_FILE_CALLS and (owned or not owner)):
        return [RunsArgv(("rm", "--", *known))]
    if name in names.MOVE_CALLS | names.COPY_CALLS:
        pair = [receiver, *arguments] if receiver is not None else list(arguments)
        if not owner_means_files or len(pair) < 2 or not all(isinstance(one, str) for one in pair[:2]):
            return []
        words = ("mv", "--") if name in names.MOVE_CALLS else ("cp", "-r", "--")
        return [RunsArgv((*words, *_texts(pair[:2])))]
    if name in names.OPEN_CALLS and owner not in ("sqlite3", "webbrowser", "window", "Image"):
        return _opened(arguments, receiver)
    if name in names.OWNED_READ_CALLS and owner in names.FILE_OWNERS:
        return _opened(arguments, receiver)
    if name in names.READ_CALLS:
        return [Opens("<", text or "")]
    if name in names.WRITE_CALLS or (name in names.OWNED_WRITE_CALLS and owner in names.FILE_OWNERS):
        return [Opens(">", text)] if text else []
    return None if name in names.SHELL_CALLS | names.ARGV_CALLS | {"exec", "execute", "cmd"} else []


def _opened(arguments: Sequence[Argument], receiver: str | None) -> list[Call]:
    """``open(PATH, MODE)``; Perl's ``open(F, MODE, PATH)``, ``open(F, ">PATH")`` and ``open(F, "COMMAND|")``."""
    texts = [argument for argument in arguments if isinstance(argument, str)]
    if receiver is not None:
        return [Opens(">" if any(re.fullmatch(r"\w*[wax]\w*\+?", text) for text in texts) else "<", receiver)]
    if not texts:
        return [Opens("<", "")]
    mode, rest = texts[0], texts[1:]
    if arguments[0] is None and re.fullmatch(r"\s*(?:-\||\|-)\s*", mode):
        return [RunsText(" ".join(rest))] if rest else [RunsUnknown("inline code runs a command that it computes")]
    if arguments[0] is None and re.fullmatch(r"\s*[+<>]*[<>]\s*(?::.*)?", mode):
        return [Opens(">" if ">" in mode else "<", rest[0] if rest else "")] if rest or "<" in mode else []
    perl = re.fullmatch(r"\s*(?P<in>\|)?\s*(?P<mode>\+?[<>]{0,2}&?)\s*(?P<path>.*?)\s*(?P<out>\|)?\s*", mode, re.DOTALL)
    if perl is not None and (perl["in"] or perl["out"]) and perl["path"]:
        return [RunsText(perl["path"])]
    if perl is not None and perl["mode"].endswith("&"):
        return []
    if perl is not None and perl["mode"]:
        return [Opens(">" if ">" in perl["mode"] else "<", perl["path"])]
    if arguments[0] is None:
        return [Opens("<", "")]
    writes = any(re.fullmatch(r"[rb]*[wax][bt+]*|r[bt]*\+[bt]*", text) for text in rest[:1])
    return [Opens(">" if writes else "<", mode)]


def _shell_call(arguments: Sequence[Argument]) -> Iterator[Call]:
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


def _argv_call(name: str, arguments: Sequence[Argument]) -> Iterator[Call]:
    given = list(arguments[1:] if name in names.FIRST_IS_MODE else arguments)
    if name in names.FIRST_IS_FILE and len(given) > 1:
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


def _evaluated(arguments: Sequence[Argument], language: str) -> Iterator[Call]:
    first = arguments[0] if arguments else None
    if isinstance(first, str) and UNKNOWN not in first:
        yield RunsCode(first)
    elif arguments or language != "ruby":
        yield RunsUnknown("inline code evaluates code that it computes")


def _by_name(arguments: Sequence[Argument] | None) -> Iterator[Call]:
    name = arguments[1] if arguments is not None and len(arguments) > 1 else None
    if isinstance(name, str) and name in names.SHELL_CALLS | names.ARGV_CALLS | names.TREE_CALLS | names.EVAL_CALLS:
        yield RunsUnknown(f"inline code looks up {name} by its name")


def _texts(arguments: Sequence[Argument]) -> tuple[str, ...]:
    found: list[str] = []
    for argument in arguments:
        found += (argument,) if isinstance(argument, str) else argument or (UNKNOWN,)
    return tuple(found)
