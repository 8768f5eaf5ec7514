"""Takes credentials out of text before it is recorded or shown.

Rules: what has the shape of a credential becomes `[redacted]` and the words around it stay, so that a reader still sees
what was done; ordinary text is returned unchanged; a reference such as ``$TOKEN`` is no credential and stays; the time
taken is linear in the length of the text (every repetition is bounded or cannot overlap with what follows it).

Shapes are those of `agent.policy.credential_shapes`, PEM (RFC 7468) and userinfo (RFC 3986).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.expressions import expression
from agent.policy.credential_shapes import TOKENS
from agent.shell.secret_options import NAMES, hidden

REDACTED = "[redacted]"

_NAMED = (
    r"(?:password|passwd|passphrase|secret|token|api[_-]?key|apikey|access[_-]key|secret[_-]access[_-]key"
    r"|secret[_-]key|private[_-]key|client[_-]secret|authtoken|auth[_-]token|access[_-]token|session[_-]token)"
)
_VALUE = r"(?![$\s]|[\"']?\$[{A-Za-z_(]|[\"']?\[redacted\])(?:\"[^\"]*\"|'[^']*'|[^\s\"'&;|<>)}\]]+)"

_ASSIGNED = expression(rf"({_NAMED}[\"']?=|{_NAMED}[\"']\s{{0,8}}:\s{{0,8}})({_VALUE})", re.IGNORECASE)
_OPTION = expression(rf"((?<![^\s\"'=])--?{_NAMED}(?:=|[ \t]{{1,8}}))(?!-)({_VALUE})", re.IGNORECASE)
_OPTION_WORD = expression(rf"--?(?:{_NAMED})", re.IGNORECASE)
_HEADER = expression(
    r"((?<![A-Za-z0-9-])(?:proxy-)?authorization:[ \t]{0,8}(?>(?:bearer|basic|token|digest|apikey)[ \t]{1,8})?+"
    r"|(?<![A-Za-z0-9-])(?:x-api-key|x-auth-token|api-key|private-token|x-vault-token|x-goog-api-key|set-cookie|cookie)"
    r":[ \t]{0,8}"
    r"|(?<![A-Za-z0-9-])bearer[ \t]{1,8}(?=[A-Za-z0-9._~+/-]{16}))"
    r"(?![$\s\[]|\"?\$)([^\s\"',;]+)",
    re.IGNORECASE,
)
_USERINFO = expression(r"(?<=://)([^\s/@:\"'?#]{0,256}):(?!\$)([^\s/@\"'?#]{1,1024})@")
_VARIABLE = expression(
    rf"((?<![A-Za-z0-9_])[A-Z][A-Z0-9_]{{0,40}}_(?:PASS|PWD|PASSPHRASE|AUTH|CREDENTIALS?)=)({_VALUE})"
)
_WORDS = expression(r"""(?:"[^"]*"|'[^']*'|[^\s"';|&<>()`])+|[;|&\n]""")

_PEM_BEGIN = expression(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = expression(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def redact(text: str) -> str:
    """`text` with the parts that look like credentials replaced by `[redacted]`. Never raises."""
    text = _without_private_keys(text)
    text = TOKENS.sub(REDACTED, text)
    if "://" in text:
        text = _USERINFO.sub(rf"\1:{REDACTED}@", text)
    text = _HEADER.sub(_keep_lead, text)
    text = _ASSIGNED.sub(_keep_lead, text)
    text = _OPTION.sub(_keep_lead, text)
    text = _VARIABLE.sub(_keep_lead, text)
    return _without_secret_words(text) if NAMES.search(text) is not None else text


def redact_argv(argv: Sequence[str]) -> list[str]:
    """The words of one command, redacted; sees that the word after ``--password`` is one."""
    words: list[str] = []
    value_follows = False
    given = dict(hidden(argv, REDACTED))
    for index, whole in enumerate(argv):
        word = given.get(index, whole)
        if value_follows and not word.startswith(("-", "$")):
            words.append(REDACTED)
        else:
            words.append(redact(word))
        value_follows = _OPTION_WORD.fullmatch(word) is not None
    return words


def _without_secret_words(text: str) -> str:
    """What is a secret by its place behind a program's option."""
    spans = [found.span() for found in _WORDS.finditer(text)]
    bare = [text[start:end].replace('"', "").replace("'", "") for start, end in spans]
    parts: list[str] = []
    position = 0
    for index, word in hidden(bare, REDACTED):
        start, end = spans[index]
        quote = text[start] if text[start] in "\"'" and text[end - 1] == text[start] else ""
        parts += (text[position:start], f"{quote}{word}{quote}")
        position = end
    parts.append(text[position:])
    return "".join(parts)


def _keep_lead(match: re.Match[str]) -> str:
    quote = match[2][0] if match[2][0] in "\"'" and match[2][-1] == match[2][0] else ""
    return f"{match[1]}{quote}{REDACTED}{quote}"


def _without_private_keys(text: str) -> str:
    begin = _PEM_BEGIN.search(text)
    if begin is None:
        return text
    parts: list[str] = []
    position = 0
    while begin is not None:
        parts += (text[position : begin.start()], REDACTED)
        end = _PEM_END.search(text, begin.end())
        if end is None:
            return "".join(parts)
        position = end.end()
        begin = _PEM_BEGIN.search(text, position)
    parts.append(text[position:])
    return "".join(parts)
