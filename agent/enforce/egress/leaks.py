"""Secrets in plain HTTP, where none may go, and uploads that are searched: a request's head, and its body as it flows.

Rules kept here: a secret that is found is a refusal under its own rule, recorded before anybody is told; the piece of a
body that completes one is never sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.enforce.egress.head import Request
from agent.enforce.egress.identity import Doorkeeper
from agent.enforce.egress.secrets import Leak
from agent.policy.request import EgressRequest, Stage
from agent.values import replace

if TYPE_CHECKING:  # its decompressors are loaded only where a rule searches uploads
    from agent.enforce.egress.scan import Upload


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


def search_upload(door: Doorkeeper, question: EgressRequest, request: Request) -> Upload | None:
    """The search for credentials of known shapes, its head done; None where what was found is only observed.
    Raises identity.Refusal."""
    from agent.enforce.egress.scan import INSTEAD, Spill, Upload, shapes

    encoding = ",".join(value for name, value in request.fields if name == "content-encoding")
    upload = Upload(shapes(door.patterns), encoding, request.body if request.body > 0 else None)
    try:
        upload.text(request.target.encode("latin-1"), "the URL")
        for name, value in request.fields:
            upload.text(f"{name}: {value}".encode("latin-1"), f"the header field {name}")
    except Spill as found:
        door.refuse(question, found.rule, found.reason, INSTEAD)
        return None
    return upload


class Outgoing:
    """One request's body on its way out. `asked` is what its connection was admitted for. `upload`: searched too."""

    def __init__(self, door: Doorkeeper, asked: EgressRequest, request: Request, upload: Upload | None = None) -> None:
        self._upload = upload
        self._door = door
        self._asked = asked
        self._method = request.method
        self._watch = door.secrets.watch() if door.secrets else None

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may be sent now. Raises identity.Refusal."""
        self._search(data, last=last)
        if self._watch is None:
            return data
        try:
            return self._watch.feed(data, last=last)
        except Leak as found:
            self._door.leak(self._question, found.name, "the body")

    @property
    def _question(self) -> EgressRequest:
        return replace(self._asked, stage=Stage.REQUEST, method=self._method)

    def _search(self, data: bytes, *, last: bool) -> None:
        if self._upload is None:
            return
        from agent.enforce.egress.scan import INSTEAD, Spill

        try:
            self._upload.body(data)
            if last:
                self._upload.end()
        except Spill as found:
            self._upload = None
            self._door.refuse(self._question, found.rule, found.reason, INSTEAD)
