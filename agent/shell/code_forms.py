"""Inline code of languages whose calls are written otherwise: awk's pipes, Tcl's words, Lisp's forms, AppleScript.

Rules: as in `agent.shell.code`. Sources: gawk(1), "I/O Statements"; Tcl's exec(n), open(n), file(n) and expect(1);
the Emacs Lisp manual, "Processes"; Guile's, Racket's and SBCL's process functions; osascript(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell.code_calls import Call, Opens, RunsArgv, RunsText, RunsUnknown
from agent.shell.code_tokens import Token, tokens_of

_COMPUTED = "inline code runs a command that it computes"


def awk_pipes(tokens: Sequence[Token]) -> Iterator[Call]:
    """``print | "cmd"``, ``"cmd" | getline``, ``print > "file"`` and ``getline < "file"``."""
    printing = False
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else Token("other", "")
        after = tokens[index + 1] if index + 1 < len(tokens) else Token("other", "")
        if token.kind == "name":
            printing |= token.text in ("print", "printf")
        elif token.kind == "other" and token.text in ";{}":
            printing = False
        elif token.is_mark("|") and before.text != "|" and after.text != "|":
            yield from _awk_pipe(tokens, index, before)
        elif token.is_mark(">") and printing and not before.is_mark(">"):
            target = tokens[index + 1 + after.is_mark(">") :][:1]
            if target and target[0].is_text:
                yield Opens(">", target[0].text)
        elif (
            token.is_mark("<") and after.is_text and any(t.text == "getline" for t in tokens[max(0, index - 3) : index])
        ):
            yield Opens("<", after.text)


def _awk_pipe(tokens: Sequence[Token], index: int, before: Token) -> Iterator[Call]:
    ahead = [token for token in tokens[index + 1 : index + 3] if not token.is_mark("&")]
    after = ahead[0] if ahead else Token("other", "")
    if after.text == "getline" and after.kind == "name":
        if before.is_text and not before.text.startswith("/inet"):
            yield RunsText(before.text)
        elif before.kind == "name":
            yield RunsUnknown(_COMPUTED)
    elif after.is_text and not after.text.startswith("/inet"):
        yield RunsText(after.text)
    elif after.kind == "name":
        yield RunsUnknown(_COMPUTED)


_TCL = expression(
    r"(?:^|[;\n\[{])[ \t]*+(?:(?P<run>exec|spawn|system|overlay|interact\s+\S+)\s+(?P<words>[^;\n\[\]{}]*)"
    r"|send\s+(?:--\s+)?\"(?P<sent>(?:[^\"\\]|\\.)*)\"|file\s+delete\s+(?P<deleted>[^;\n\]}]*)"
    r"|open\s+(?:\"\|(?P<pipe>[^\"]*)\"|\{\|(?P<braced>[^}]*)\}|\|(?P<word>\S+)|\"?(?P<file>[^\s\"\]]+)\"?\s*(?P<mode>[rwa]\+?)?))",
    re.MULTILINE,
)


def tcl_calls(code: str) -> Iterator[Call]:
    """What Tcl and expect run."""
    for found in _TCL.finditer(code):
        run = found["words"] or found["pipe"] or found["braced"] or found["word"]
        if run:
            yield RunsText(re.sub(r"^(?:-\w+\s+)*(?:--\s+)?", "", run))
        elif found["sent"]:
            yield RunsText(re.sub(r"\\[rn]", "\n", found["sent"]))
        elif found["deleted"]:
            words = [word.strip('"{') for word in found["deleted"].split() if word not in ("-force", "--")]
            yield RunsArgv(("rm", "-rf", "--", *(UNKNOWN if word[:1] in "$[" else word for word in words)))
        elif found["file"]:
            yield Opens(">" if (found["mode"] or "r")[0] in "wa" else "<", found["file"])
    if re.search(r"\bsocket\s+[\w$.]", code) and re.search(r"\b(?:exec|open\s+\"?\|)", code):
        yield RunsArgv(("<reverse-shell>", "tcl"))


_LISP_TEXT = frozenset(
    [
        *("shell-command", "async-shell-command", "shell-command-to-string", "system", "shell", "compile", "term"),
        *("eshell-command", "call-process-shell-command", "start-process-shell-command", "run-shell-command"),
        *("system*", "ext:shell", "ext:run-shell-command", "uiop:run-program", "shell-command-on-region", "ansi-term"),
    ]
)
_LISP_ARGV = frozenset(
    [
        *("call-process", "start-process", "process-file", "make-process", "run-program", "sb-ext:run-program", "sh"),
        *("execlp", "execl", "execle", "process-lines", "subprocess", "ext:run-program", "clojure.java.shell/sh"),
        *("shell/sh", "spawn", "open-pipe", "open-pipe*"),
    ]
)
_LISP_DELETE = frozenset(("delete-directory", "delete-file", "delete-directory-and-files", "delete-directory/files"))
_LISP_FORM = expression(r"\(\s*(?P<name>[\w.:/*!?-]+)")
_LISP_STRING = expression(r'"((?:[^"\\]|\\.)*)"')


def lisp_calls(code: str) -> Iterator[Call]:
    """What forms of a Lisp, or Prolog's ``shell(…)``, run or delete."""
    for found in _LISP_FORM.finditer(code):
        name = found["name"]
        if name not in _LISP_TEXT | _LISP_ARGV | _LISP_DELETE:
            continue
        form = code[found.end() : _closing(code, found.start())]
        texts = [re.sub(r"\\(.)", r"\1", text) for text in _LISP_STRING.findall(form)]
        if name in _LISP_DELETE:
            yield RunsArgv(("rm", "-r", "--", *(texts[:1] or (UNKNOWN,))))
        elif not texts:
            yield RunsUnknown(_COMPUTED)
        elif name in _LISP_TEXT:
            yield RunsText(texts[-1] if name.startswith("start-process") else texts[0])
        else:
            skipped = 2 if name == "start-process" else 0
            yield RunsArgv(tuple(texts[skipped:])) if texts[skipped:] else RunsUnknown(_COMPUTED)
    for called in re.finditer(r"\b(?:shell|process_create)\s*\(\s*['\"]([^'\"]*)", code):
        yield RunsText(called[1])


def _closing(code: str, start: int) -> int:
    depth = 0
    for index in range(start, min(len(code), start + 4096)):
        depth += (code[index] == "(") - (code[index] == ")")
        if depth == 0:
            return index
    return len(code)


def applescript_calls(code: str) -> Iterator[Call]:
    """``do shell script "…"``, and JavaScript's ``doShellScript("…")``."""
    for found in re.finditer(r"do\s*shell\s*script\b\W*", code, re.IGNORECASE):
        literal = tokens_of(code[found.end() - 1 :], "other")[:3]
        text = next((token.text for token in literal if token.is_text), None)
        yield RunsText(text) if text is not None else RunsUnknown(_COMPUTED)
