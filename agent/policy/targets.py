"""What an egress question names: a URL, or a host with or without port, with or without a method in front.

Rules kept here: the host is normalised like every other; user names, odd ports and unknown schemes are refused; nothing
is repaired.
"""

from __future__ import annotations

import re
from typing import Final

from agent.expressions import expression
from agent.policy.hosts import HostError, normalise_host
from agent.policy.request import Protocol
from agent.policy.words import shown
from agent.values import dataclass

_TARGET: Final = expression(
    r"(?:(?P<method>[A-Za-z-]+) )?(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?P<authority>[^/?#\s]+)(?P<path>/[^?#\s]*)?(?P<query>\?[^#\s]*)?(?:#\S*)?",
    re.ASCII,
)
_SCHEMES: Final = {
    "https": (Protocol.TLS, 443),
    "wss": (Protocol.TLS, 443),
    "http": (Protocol.HTTP, 80),
    "ws": (Protocol.HTTP, 80),
    "tcp": (Protocol.TCP, None),
}
_AUTHORITY: Final = expression(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?", re.ASCII)


class TargetError(ValueError):
    """The text names no destination; it says what is wrong."""


@dataclass(frozen=True, slots=True)
class Target:
    """A destination. `path` and `method` None: not said. `query`: what follows the ``?``, empty without."""

    host: str
    port: int
    protocol: Protocol
    path: str | None = None
    method: str | None = None
    query: str = ""


def parse_target(text: str) -> Target:
    """Read a URL (https, http, wss, ws, tcp), ``host`` or ``host:port``. Raises TargetError."""
    found = _TARGET.fullmatch(text)
    if found is None:
        raise TargetError(f"{shown(text)!r} is neither a URL nor a host")
    scheme = (found["scheme"] or "https").lower()
    if scheme not in _SCHEMES:
        raise TargetError(f"unknown scheme {shown(scheme)!r}; one of {', '.join(_SCHEMES)}")
    protocol, default = _SCHEMES[scheme]
    host, port = _split(found["authority"], default)
    path = found["path"]
    if path is None and found["scheme"] is not None and protocol is not Protocol.TCP:
        path = "/"
    return Target(host, port, protocol, path, found["method"], (found["query"] or "").removeprefix("?"))


def _split(authority: str, default: int | None) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise TargetError(f"{shown(authority)!r} is no host with an optional port")
    if found[2] is None and default is None:
        raise TargetError("a tcp destination needs a port: tcp://host:port")
    port = int(found[2]) if found[2] is not None else default
    if port is None or not 1 <= port <= 65535:
        raise TargetError(f"{port} is no TCP port")
    try:
        return normalise_host(found[1]), port
    except HostError as error:
        raise TargetError(error.message) from error
