"""Questions to a policy as `check` gets them (flags, or one JSON object per line), turned into requests.

Rules kept here: the rim does the I/O that the pure core must not (the day, the session's account, symlinks as they are
now); what cannot be understood is a `QuestionError` that says what is wrong, never a guess.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

from agent.daemon.base.spec import WORKDIR
from agent.policy.hosts import HostError, normalise_host
from agent.policy.request import (
    Access,
    CommandRequest,
    EgressRequest,
    Origin,
    PathRequest,
    Protocol,
    Request,
    Stage,
    ToolRequest,
)
from agent.policy.targets import Target, TargetError, parse_target
from agent.policy.words import shown
from agent.values import dataclass

ORIGIN: Final = Origin(mechanism="check")
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
LONGEST_PATH: Final = 4096  # PATH_MAX, linux/limits.h


class QuestionError(ValueError):
    """The question is malformed; the text says how."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session has around it, as far as a question needs it. `tmpdir` is made for each session, so `check` has
    none to offer: what holds in it is decided by the policy alone."""

    today: date
    home: str
    tmpdir: str = ""
    workdir: str = WORKDIR


def surroundings() -> Surroundings:
    """Those of a session on this machine: the account `session` where it exists, and the UTC day."""
    try:
        home = pwd.getpwnam("session").pw_dir
    except KeyError:
        home = "/home/session"
    return Surroundings(datetime.now(tz=UTC).date(), os.path.realpath(home))


def command(around: Surroundings, text: str, cwd: str | None) -> CommandRequest:
    """May this shell text run?"""
    from agent.shell.requests import from_text

    where = around.workdir if cwd is None else cwd
    if not where.startswith("/"):
        raise QuestionError("cwd must be an absolute path")
    return from_text(text, cwd=where, home=around.home, today=around.today, origin=ORIGIN)


def egress(
    around: Surroundings, target: Target, method: str | None, headers: tuple[tuple[str, str], ...] = ()
) -> EgressRequest:
    """May this be reached? A URL is one request (GET where no method is given); a bare host is a connection."""
    method = target.method if method is None else method
    if method is not None and not (method.isascii() and method.replace("-", "").isalpha()):
        raise QuestionError(f"{shown(method)!r} is no HTTP method")
    return EgressRequest(
        host=target.host,
        port=target.port,
        protocol=target.protocol,
        stage=Stage.NAME if target.path is None else Stage.REQUEST,
        method=None if target.protocol is Protocol.TCP else method or "GET",
        path=target.path,
        query=None if target.path is None else target.query,
        headers=headers if target.path is not None or headers else None,
        today=around.today,
        origin=ORIGIN,
    )


def header_of(text: str) -> tuple[str, str]:
    """One header field, ``Name: value``, its name in lower case."""
    name, colon, value = text.partition(":")
    if not colon or not _FIELD_NAME.fullmatch(name):
        raise QuestionError(f"{shown(text)!r} is no header field; write 'Name: value'")
    if any(character < " " and character != "\t" for character in value):
        raise QuestionError(f"the header field {shown(name)!r} holds a control character")
    return name.lower(), value.strip()


def target_of(text: str) -> Target:
    """The destination a URL or host names."""
    try:
        return parse_target(text)
    except TargetError as error:
        raise QuestionError(str(error)) from error


def path(around: Surroundings, access: str, text: str, cwd: str | None) -> PathRequest:
    """May this path be accessed? Symlinks are resolved as they are now; deleting concerns the link itself."""
    try:
        wanted = Access(access)
    except ValueError:
        raise QuestionError(f"access must be one of {', '.join(Access)}") from None
    if not text or "\0" in text or len(os.fsencode(text)) > LONGEST_PATH:
        raise QuestionError("the path is empty, too long or holds a NUL byte")
    absolute = os.path.join(around.workdir if cwd is None else cwd, text)  # noqa: PTH118
    if not absolute.startswith("/"):
        raise QuestionError("cwd must be an absolute path")
    return PathRequest(
        access=wanted,
        path=_resolved(absolute, follow=wanted is not Access.DELETE),
        today=around.today,
        origin=ORIGIN,
        asked=text,
        home=around.home,
        tmpdir=around.tmpdir,
    )


def tool(around: Surroundings, name: str) -> ToolRequest:
    """May a coding agent call this tool?"""
    from agent.enforce.commands.hook_tools import kind_of

    if not name or len(name) > LONGEST_PATH:
        raise QuestionError("the tool's name is empty or too long")
    return ToolRequest(name, kind_of(name) is not None, around.today, ORIGIN)


def from_json(around: Surroundings, value: object) -> Request:
    """One line of `check --jsonl`. Keys that no kind knows are ignored."""
    if not isinstance(value, dict):
        raise QuestionError("a line must be a JSON object")
    kind = _text(value, "kind", required=True)
    match kind:
        case "command":
            return command(around, _text(value, "command", required=True) or "", _text(value, "cwd"))
        case "egress":
            return _egress_from_json(around, value)
        case "path":
            access, asked = _text(value, "access", required=True), _text(value, "path", required=True)
            return path(around, access or "", asked or "", _text(value, "cwd"))
        case "tool":
            return tool(around, _text(value, "tool", required=True) or "")
        case _:
            raise QuestionError("kind must be one of command, egress, path, tool")


def _egress_from_json(around: Surroundings, value: Mapping[str, object]) -> EgressRequest:
    url, host, method = _text(value, "url"), _text(value, "host"), _text(value, "method")
    if (url is None) == (host is None):
        raise QuestionError("egress needs either url, or host and port")
    if url is not None:
        if "://" not in url:
            raise QuestionError(f"{shown(url)!r} is no URL; give host and port instead")
        return egress(around, target_of(url), method, _headers(value))
    port = value.get("port", 443)
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise QuestionError("port must be a number from 1 to 65535")
    protocol = _text(value, "protocol") or "tls"
    if protocol not in tuple(Protocol):
        raise QuestionError(f"protocol must be one of {', '.join(Protocol)}")
    try:
        name = normalise_host(host or "")
    except HostError as error:
        raise QuestionError(error.message) from error
    path, _, query = (_text(value, "path") or "").partition("?")
    return egress(around, Target(name, port, Protocol(protocol), path or None, query=query), method, _headers(value))


def _headers(value: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """``headers``: an object of names and texts, or of lists of texts for a field that is repeated."""
    given = value.get("headers", {})
    if not isinstance(given, dict):
        raise QuestionError("headers must be an object")
    found = []
    for name, held in given.items():
        for text in held if isinstance(held, list) else [held]:
            if not isinstance(text, str):
                raise QuestionError(f"the header field {shown(name)!r} must be a text, or a list of texts")
            found.append(header_of(f"{name}:{text}"))
    return tuple(found)


def _text(value: Mapping[str, object], key: str, *, required: bool = False) -> str | None:
    found = value.get(key)
    if found is None and not required:
        return None
    if not isinstance(found, str):
        raise QuestionError(f"{key} must be a text" if key in value else f"{key} is missing")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise QuestionError(f"{key} is not valid Unicode") from None
    return found


def _resolved(absolute: str, *, follow: bool) -> str:
    if follow:
        return os.path.realpath(absolute)
    head, tail = os.path.split(absolute.rstrip("/"))
    if tail in ("", ".", ".."):
        return os.path.realpath(absolute)
    return os.path.join(os.path.realpath(head), tail)  # noqa: PTH118
