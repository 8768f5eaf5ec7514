"""Telling a client that it goes no further, in the words it understands.

Rules kept here: an answer is sent where one can still be read, and the client is given time to read it; a client that
believes it speaks to its destination hears a TLS alert or a reset, never words of ours that look like the
destination's.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from agent.enforce.egress import socks
from agent.enforce.egress.answer import Answer, Form, render_answer
from agent.enforce.egress.client import Client, Speech
from agent.enforce.egress.wire import Wire

_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024
_ACCESS_DENIED: Final = b"\x15\x03\x01\x00\x02\x02\x31"  # a fatal TLS alert, access_denied (RFC 8446 6)
_TLS: Final = b"\x16"


async def tell(client: Client, answer: Answer) -> None:
    """Say it, as far as it can be said. Closing stays with the caller, resetting happens here."""
    words = _words(client, answer)
    if words is None:
        if not client.started:
            client.wire.close(reset=True)
        return
    client.wire.limit(_LINGER_SECONDS)
    with contextlib.suppress(OSError):
        await client.wire.send(words)
    await leave(client)


async def leave(client: Client) -> None:
    """Give the client time to read what it was sent last, where it still sends itself. The caller closes."""
    client.wire.limit(_LINGER_SECONDS)
    request = client.request
    with contextlib.suppress(OSError):
        if client.buffered or (request is not None and request.body) or not client.wire.quiet():
            await _linger(client.wire)


def _words(client: Client, answer: Answer) -> bytes | None:
    match client.speech:
        case Speech.HTTP:
            return None if client.started else _http(client, answer)
        case Speech.SOCKS4:
            return socks.REFUSED_4
        case Speech.SOCKS_METHODS:
            return socks.NO_METHOD
        case Speech.SOCKS:
            return socks.render_reply(_socks_code(answer))
        case Speech.BYTES:
            return _ACCESS_DENIED if client.buffered[:1] == _TLS else None


def _http(client: Client, answer: Answer) -> bytes:
    request = client.request
    if request is None:
        return render_answer(answer)
    return render_answer(answer, form=Form.wanted(request.accept), bodiless=request.method == "HEAD")


def _socks_code(answer: Answer) -> int:
    if answer.rule == "socks-command":
        return socks.COMMAND_UNKNOWN
    if answer.rule and answer.status != 400:
        return socks.NOT_ALLOWED
    if answer.status in (502, 504):
        return socks.CONNECTION_REFUSED if answer.refused else socks.HOST_UNREACHABLE
    return socks.GENERAL


async def _linger(wire: Wire) -> None:
    """Closing with unread bytes makes the kernel send a reset, which can take the answer away from its reader."""
    wire.sock.shutdown(socket.SHUT_WR)
    left = _LINGER_BYTES
    while left > 0 and (data := await wire.recv()):
        left -= len(data)
