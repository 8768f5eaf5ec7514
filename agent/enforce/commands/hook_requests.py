"""From what a tool call asks to requests of the policy: text analysed, symlinks resolved, URLs taken apart.

Rules kept here: nothing is decided; what cannot be read raises ProtocolError (and is denied); paths are resolved as
they are now, where the guard sees them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date
from typing import assert_never

from agent.enforce.commands.hook_protocols import Ask, AskArgv, AskPath, AskText, AskTool, AskUrl, ProtocolError
from agent.enforce.commands.operated import operated
from agent.enforce.commands.redirected import redirected
from agent.policy.request import Access, CommandRequest, EgressRequest, Origin, PathRequest, Request, Stage, ToolRequest
from agent.policy.request import Protocol as Spoken
from agent.policy.targets import TargetError, parse_target
from agent.shell.requests import from_argv, from_text
from agent.values import dataclass

_PATH_MAX = 4096  # linux/limits.h


@dataclass(frozen=True, slots=True)
class Requests:
    """Makes the requests of one session. `home` and `tmpdir` are the session's own; `supervised`: the exec ring decides
    again on every exec."""

    home: str
    tmpdir: str
    supervised: bool
    today: Callable[[], date]

    def of(self, ask: Ask, origin: Origin) -> list[Request]:
        """The requests for this ask: of a text, also those for the files that it opens itself. Raises as `make`."""
        made = self.make(ask, origin)
        return [made, *_opened(self, made)] if isinstance(made, CommandRequest) else [made]

    def make(self, ask: Ask, origin: Origin) -> Request:
        """The request for this ask. Raises ProtocolError, OSError."""
        today, home, supervised = self.today(), self.home, self.supervised
        match ask:
            case AskText(text, cwd):
                return from_text(text, cwd=cwd, home=home, today=today, origin=origin, supervised=supervised)
            case AskArgv(argv, cwd):
                return from_argv(argv, exe=None, cwd=cwd, home=home, today=today, origin=origin, supervised=supervised)
            case AskPath(access, path):
                return PathRequest(
                    access=access,
                    path=_resolved(path, follow=access is not Access.DELETE),
                    today=today,
                    origin=origin,
                    asked=path,
                    home=home,
                    tmpdir=self.tmpdir,
                )
            case AskTool(tool, known):
                return ToolRequest(tool, known, today, origin)
            case AskUrl(url):
                return _egress(url, today, origin)
            case _:
                assert_never(ask)


def _opened(requests: Requests, text: CommandRequest) -> Iterator[PathRequest]:
    redirections = ((access, path, True) for access, path in redirected(text))
    for access, path, follow in dict.fromkeys((*redirections, *operated(text))):
        yield PathRequest(
            access=access,
            path=_resolved(path, follow=follow),
            today=text.today,
            origin=text.origin,
            asked=path,
            home=requests.home,
            tmpdir=requests.tmpdir,
        )


def _resolved(path: str, *, follow: bool) -> str:
    """Symlinks as they are now, where the guard sees them. Deleting and replacing concern the link itself; ``..`` is
    what lies above where a link leads."""
    if "\0" in path or len(os.fsencode(path)) > _PATH_MAX:
        raise ProtocolError("the path is too long or holds a NUL byte")
    parent, name = os.path.split(path.rstrip("/"))
    if follow or name in ("", ".", ".."):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(parent), name)  # noqa: PTH118


def _egress(url: str, today: date, origin: Origin) -> EgressRequest:
    try:
        target = parse_target(url)
    except TargetError as error:
        raise ProtocolError(str(error)) from error
    return EgressRequest(
        host=target.host,
        port=target.port,
        today=today,
        origin=origin,
        protocol=target.protocol,
        stage=Stage.NAME if target.path is None else Stage.REQUEST,
        method=None if target.protocol is Spoken.TCP else "GET",
        path=target.path,
        query=None if target.path is None else target.query,
        headers=(),  # the proxy decides the request itself, with the fields that it will have
    )
