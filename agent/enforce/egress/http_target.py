"""What a plain HTTP request asks for: host, port, path and query, as the forwarder decides and sends them.

Rules kept here: what two readers could take differently (a fragment, a backslash, a missing Host) is an error.

Sources: RFC 9112 (3.2.1 origin-form, 3.2.2 absolute-form).
"""

from __future__ import annotations

import re
from typing import Final

from agent.enforce.egress.client import Place
from agent.enforce.egress.head import HeadError, Request, end_to_end, overrides_method, overrides_path, tokens
from agent.enforce.egress.identity import Doorkeeper, parse_authority
from agent.policy.request import EgressRequest
from agent.values import dataclass

_URL: Final = re.compile(r"[hH][tT][tT][pP]://([^/?]*)(/[^?]*)?(\?.*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """`query` has its question mark, and is empty where there is none."""

    host: str
    port: int
    path: str
    query: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, where it is for, and the fields of it that travel on."""

    request: Request
    target: Target
    fields: list[tuple[str, str]]

    @staticmethod
    def of(request: Request, place: Place | None) -> Asked:
        """Raises HeadError, HostError."""
        return Asked(request, parse_target(request, place), end_to_end(request.fields))


def refuse_tricks(door: Doorkeeper, question: EgressRequest, request: Request, *, inspected: bool) -> None:
    """Refuse what means something else than it says. `inspected`: rules look at requests. Raises Refusal."""
    if request.method == "TRACE":
        door.refuse(question, "method-refused", "TRACE is not forwarded")
    if (tokens(request.fields, "upgrade") - {"h2c"}) or request.method == "CONNECT":
        door.refuse(question, "upgrade-refused", "plain HTTP connections are not upgraded", "use https or wss")
    if inspected and any(overrides_method(name) for name, _ in request.fields):
        door.refuse(question, "method-override", "the request overrides its method in a header")
    if inspected and any(overrides_path(name) for name, _ in request.fields):
        door.refuse(question, "path-override", "the request overrides its path in a header")


def parse_target(request: Request, place: Place | None) -> Target:
    """What a request asks for: by its absolute-form target, or at `place` by its Host. Raises HeadError, HostError."""
    if "#" in request.target or "\\" in request.target:
        raise HeadError("the URL holds a character that does not belong there")
    match = _URL.fullmatch(request.target)
    if match is not None:
        authority, path, query = match.groups(default="")
        return Target(*parse_authority(authority, 80), path or "/", query)
    if place is None:
        hint = "CONNECT" if request.target.lower().startswith("https:") else "a full http:// URL"
        raise HeadError(f"this is a proxy: ask with {hint}")
    if not request.target.startswith("/"):
        raise HeadError("the request target is not a path")
    if request.host is None:
        raise HeadError("the Host header is missing")
    path, mark, query = request.target.partition("?")
    host, _ = parse_authority(request.host, place.port)
    return Target(host, place.port, path, mark + query)
