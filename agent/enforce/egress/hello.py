"""The TLS ClientHello, read strictly and without taking part in the handshake. Pure.

Rules kept here: what is not exactly one well-formed ClientHello is an error that names its rule; nothing is skipped
over that could hide a second name. The name is the session's claim: whoever calls compares it with what was decided.

Sources: RFC 8446 (records 5.1, ClientHello 4.1.2, supported_versions 4.2.1), RFC 6066 section 3 (server_name), RFC 9849
(encrypted_client_hello, 0xfe0d), and the ESNI drafts (0xffce).
"""

from __future__ import annotations

from typing import Final

from agent.values import dataclass

MAX_HELLO: Final = 32 * 1024
_RECORD_MOST: Final = 1 << 14
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _SUPPORTED_VERSIONS, _ECH, _ESNI = 0, 43, 0xFE0D, 0xFFCE
_TLS12: Final = 0x0303


class HelloError(Exception):
    """Not a ClientHello that can be let through. `rule` is the rule id that refuses it."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What matters of a ClientHello. `sni` is as sent, None where there is none; `newest` the best version offered."""

    sni: str | None
    newest: int
    encrypted: bool


class _Reader:
    """Takes length-prefixed pieces off a byte string. Raises HelloError where it is too short."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise HelloError("tls-malformed", "the TLS ClientHello is malformed")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    def end(self) -> None:
        if self.left:
            raise HelloError("tls-malformed", "the TLS ClientHello has trailing bytes")


def read_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello at the start of `data`, None where more bytes are needed. Raises HelloError."""
    message = _message(data)
    return None if message is None else _parse(message)


def _message(data: bytes) -> bytes | None:
    """Join the records until the handshake message is whole."""
    whole = 5 + int.from_bytes(data[3:5])
    if len(data) >= whole > 9 and data[5] == _CLIENT_HELLO and int.from_bytes(data[6:9]) == whole - 9:
        _check_record(data[:5])
        if whole - 5 <= _RECORD_MOST:
            return data[9:whole]  # nearly always: one record that holds the message and nothing else
    body, at = bytearray(), 0
    while True:
        if len(body) >= 4:
            need = 4 + int.from_bytes(body[1:4])
            if body[0] != _CLIENT_HELLO or need > MAX_HELLO:
                raise HelloError("tls-required", "the first TLS message is no ClientHello")
            if len(body) > need:
                raise HelloError("tls-malformed", "the TLS ClientHello is followed by other bytes in its record")
            if len(body) == need:
                return bytes(body[4:])
        head = data[at : at + 5]
        _check_record(head)
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5])
        if not 0 < length <= _RECORD_MOST:
            raise HelloError("tls-malformed", "the first TLS record is malformed")
        piece = data[at + 5 : at + 5 + length]
        body += piece
        if body and body[0] != _CLIENT_HELLO:
            raise HelloError("tls-required", "the first TLS message is no ClientHello")
        if len(piece) < length:
            return None
        at += 5 + length


def _check_record(head: bytes) -> None:
    """As soon as a byte cannot be TLS, say so: bytes of another protocol may never make up a record."""
    if (head[:1] and head[0] != _HANDSHAKE) or (head[1:2] and head[1] != 3) or (head[2:3] and head[2] > 4):
        raise HelloError("tls-required", "the first bytes on this connection are not TLS")


def _parse(message: bytes) -> ClientHello:
    reader = _Reader(message)
    legacy = reader.number(2)
    reader.take(32)
    session, ciphers, compression = reader.vector(1), reader.vector(2), reader.vector(1)
    if len(session) > 32 or len(ciphers) < 2 or len(ciphers) % 2 or not compression:
        raise HelloError("tls-malformed", "the TLS ClientHello is malformed")
    extensions = _extensions(reader.vector(2)) if reader.left else {}
    reader.end()
    name = extensions.get(_SERVER_NAME)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    return ClientHello(
        sni=None if name is None else _server_name(name),
        newest=legacy if versions is None else _newest(versions),
        encrypted=_ECH in extensions or _ESNI in extensions,
    )


def _extensions(block: bytes) -> dict[int, bytes]:
    """Type to body. Written out flat: every connection walks some twenty of them."""
    found: dict[int, bytes] = {}
    at, end = 0, len(block)
    while at < end:
        if at + 4 > end:
            raise HelloError("tls-malformed", "the TLS ClientHello is malformed")
        kind, size = block[at] << 8 | block[at + 1], block[at + 2] << 8 | block[at + 3]
        at += 4 + size
        if at > end:
            raise HelloError("tls-malformed", "the TLS ClientHello is malformed")
        if kind in found:
            what = "two server names" if kind == _SERVER_NAME else "an extension twice"
            raise HelloError("tls-malformed", f"the TLS ClientHello carries {what}")
        found[kind] = block[at - size : at]
    return found


def _server_name(extension: bytes) -> str:
    outer = _Reader(extension)
    names = _Reader(outer.vector(2))
    outer.end()
    kind, name = names.number(1), names.vector(2)
    names.end()  # RFC 6066: one name of one type; more would be two identities
    if kind != 0 or not name:
        raise HelloError("tls-malformed", "the TLS server name is malformed")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError as error:
        raise HelloError("tls-malformed", "the TLS server name is not ASCII") from error


def _newest(extension: bytes) -> int:
    outer = _Reader(extension)
    versions = outer.vector(1)
    outer.end()
    if not versions or len(versions) % 2:
        raise HelloError("tls-malformed", "the TLS version list is malformed")
    best = 0
    for at in range(0, len(versions), 2):
        if versions[at] == 3:  # the rest is GREASE (RFC 8701)
            best = max(best, 0x300 | versions[at + 1])
    return best


def too_old(hello: ClientHello) -> bool:
    """True where the client offers nothing of TLS 1.2 or newer."""
    return hello.newest < _TLS12
