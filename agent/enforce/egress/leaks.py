"""Secrets in plain HTTP, where none may go: the head of a request, and its body as it flows.

Rules kept here: a secret that is found is a refusal under its own rule, recorded before anybody is told; the piece of a
body that completes one is never sent.
"""

from __future__ import annotations

from dataclasses import replace

from agent.enforce.egress.head import Request
from agent.enforce.egress.identity import Doorkeeper
from agent.enforce.egress.secrets import Leak
from agent.policy.request import EgressRequest, Stage


def refuse_leaks(door: Doorkeeper, question: EgressRequest, request: Request) -> None:
    """Search the head. Raises identity.Refusal."""
    if not door.secrets:
        return
    parts = [("the URL", request.target)]
    parts += [(f"the header field {name}", f"{name}: {value}") for name, value in request.fields]
    if door.secrets.find("\n".join(text for _, text in parts).encode("latin-1")) is None:
        return
    for where, text in parts:
        found = door.secrets.find(text.encode("latin-1"))
        if found is not None:
            door.leak(question, found, where)


class Outgoing:
    """One request's body on its way out. `asked` is what its connection was admitted for."""

    def __init__(self, door: Doorkeeper, asked: EgressRequest, request: Request) -> None:
        self._door = door
        self._question = replace(asked, stage=Stage.REQUEST, method=request.method)
        self._watch = door.secrets.watch() if door.secrets else None

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may be sent now. Raises identity.Refusal."""
        if self._watch is None:
            return data
        try:
            return self._watch.feed(data, last=last)
        except Leak as found:
            self._door.leak(self._question, found.name, "the body")
