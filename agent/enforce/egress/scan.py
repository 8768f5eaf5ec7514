"""Uploads searched for known shapes of credentials, before they go on (`scan: true` of a host rule). Pure.

Rules kept here: what completes a match is never sent, in one piece or in many; a piece is searched together with the
`OVERLAP` bytes before it, as it is and with its encodings taken off (`agent.enforce.egress.unfold`); a compressed body
is searched as it is sent and decompressed, as it flows, and one whose encoding is not known, or has no end, can't be
searched and is refused, its last piece unsent where its length was announced; what matched is named by its shape, never
quoted.

What this does not see: a credential longer than `OVERLAP`, one that is encrypted, in an encoding that is not listed, or
cut in parts that travel apart.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol

import brotli
import zstandard

from agent.enforce.egress.unfold import DEPTH, unfolded
from agent.policy.model import Pattern

OVERLAP: Final = 8192
WINDOW: Final = 256 * 1024
"""Bytes that are searched at once: more come in several windows."""
MAX_EXPANSION: Final = 64 * 1024 * 1024
"""Bytes that one compressed body may become; more can't be searched and is refused."""
MAX_RATIO: Final = 100
"""How many times its size it may become, past the first `WINDOW` bytes: a search takes time, and others wait."""
_ZSTD_WINDOW: Final = 8 * 1024 * 1024  # RFC 9659: what a content coding may ask for
_ZSTD_PIECE: Final = 256  # a block of four bytes can become 128 KiB (RFC 8878 3.1.1.2): 8 MiB of a piece


CREDENTIAL_IN_UPLOAD: Final = "credential-in-upload"
UPLOAD_UNREADABLE: Final = "upload-unreadable"
INSTEAD: Final = "take the credential out; what the agent should put in belongs under `secrets:` in the policy"


class Spill(Exception):
    """What should go out may not. `rule` is the rule id that refuses it, `reason` says why without quoting it."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


class _Unsearchable(Exception):
    """The encoding of a body is not known, malformed, or grows past the bound."""


class _Decompressor(Protocol):
    @property
    def ended(self) -> bool:
        """Nothing more is to come of what began."""
        ...

    def decompress(self, data: bytes, most: int, /) -> bytes:
        """What `data` becomes, or somewhat more than `most` bytes of it."""
        ...


class Shapes:
    """The compiled patterns."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._all = tuple((pattern, re.compile(pattern.regex)) for pattern in patterns)

    def __bool__(self) -> bool:
        return bool(self._all)

    def find(self, data: bytes, depth: int = DEPTH) -> Pattern | None:
        """The first shape that `data`, or what is folded up in it, holds."""
        for text in unfolded(data, depth):
            lowered = text.lower()
            for pattern, regex in self._all:
                if (not pattern.keywords or any(word in lowered for word in pattern.keywords)) and regex.search(text):
                    return pattern
        return None


@lru_cache(maxsize=4)
def shapes(patterns: tuple[Pattern, ...]) -> Shapes:
    """The compiled shapes of a policy's patterns."""
    return Shapes(patterns)


class Upload:
    """One request on its way out. `encoding`: its Content-Encoding field, None where there is none. `length`: the bytes
    of its body, None where that is not announced."""

    def __init__(self, searched: Shapes, encoding: str | None = None, length: int | None = None) -> None:
        self._shapes = searched
        self._left = length
        self._chain: list[_Decompressor] | None = None
        self._encodings = [word.strip().lower() for word in (encoding or "").split(",")]
        self._sent = self._expanded = 0
        self._tail = self._sent_tail = b""

    def text(self, data: bytes, where: str) -> None:
        """Search a piece that is whole: a URL, a header field, a message. Raises Spill."""
        found = self._shapes.find(data)
        if found is not None:
            raise Spill(CREDENTIAL_IN_UPLOAD, f"{where} holds what looks like a credential: {found.description}")

    def body(self, data: bytes) -> None:
        """Search the next piece of the body as sent; nothing of it may go on before. Raises Spill."""
        try:
            plain = self._decompressed(data)
        except _Unsearchable as error:
            raise _unreadable(error) from error
        self._tail = self._search(self._tail, plain)
        if self._chain:  # a name in gzip's head or a frame that is skipped is not in what it becomes
            self._sent_tail = self._search(self._sent_tail, data)
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self.end()

    def end(self) -> None:
        """The body is whole; its end may not go on before. Raises Spill where what it is compressed with has no end."""
        if self._chain is not None and not all(step.ended for step in self._chain):
            raise _unreadable(_Unsearchable("it ends before its Content-Encoding does"))

    def _search(self, tail: bytes, data: bytes) -> bytes:
        for at in range(0, len(data), WINDOW):
            text = tail + data[at : at + WINDOW]
            self.text(text, "the body")
            tail = text[-OVERLAP:]
        return tail

    def _decompressed(self, data: bytes) -> bytes:
        if self._chain is None:
            self._chain = [_decompressor(name) for name in reversed(self._encodings) if name not in ("", "identity")]
        self._sent += len(data)
        by_ratio = WINDOW + MAX_RATIO * self._sent
        for step in self._chain:
            left = min(by_ratio, MAX_EXPANSION) - self._expanded
            try:
                data = step.decompress(data, left)
            except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
                raise _Unsearchable("it is not what its Content-Encoding says") from error
            if len(data) > left:
                raise _Unsearchable(
                    f"decompressed it is longer than {MAX_EXPANSION} bytes"
                    if by_ratio > MAX_EXPANSION
                    else f"decompressed it is more than {MAX_RATIO} times as long as it was sent"
                )
        if self._chain:
            self._expanded += len(data)
        return data


def _unreadable(error: _Unsearchable) -> Spill:
    return Spill(UPLOAD_UNREADABLE, f"the body can't be searched for credentials: {error}")


def _decompressor(name: str) -> _Decompressor:
    match name:
        case "gzip" | "x-gzip" | "deflate":
            return _Inflate()
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
    raise _Unsearchable(f"the content encoding '{name[:32]}' is not known")


class _Inflate:
    """gzip (members one after the other), zlib, and the raw deflate that some send by that name (RFC 9110 8.4.1.2)."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._start = b""

    @property
    def ended(self) -> bool:
        return self._stream is not None and self._stream.eof

    def decompress(self, data: bytes, most: int) -> bytes:
        if self._stream is None:
            self._start += data
            if len(self._start) < 2:
                return b""
            data, self._start = self._start, b""
            self._stream = zlib.decompressobj(wbits=47 if _headed(data) else -15)
        out = bytearray()
        while data and len(out) <= most:
            out += self._stream.decompress(data, most + 1 - len(out))
            data = self._stream.unused_data
            if self._stream.eof and data:
                self._stream = zlib.decompressobj(wbits=47)
        return bytes(out)


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def ended(self) -> bool:
        return bool(self._stream.is_finished())

    def decompress(self, data: bytes, most: int) -> bytes:
        if self._stream.is_finished():
            if data:
                raise EOFError("bytes after the end")
            return b""
        out = bytes(self._stream.process(data, output_buffer_limit=most + 1))
        while len(out) <= most and not self._stream.can_accept_more_data() and not self._stream.is_finished():
            out += bytes(self._stream.process(b"", output_buffer_limit=most + 1))
        return out


class _Zstd:
    """Frames one after the other (RFC 8878 3.1), those that are to be skipped as well."""

    def __init__(self) -> None:
        self._stream = self._next()

    @staticmethod
    def _next() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def decompress(self, data: bytes, most: int) -> bytes:
        out, size = [], 0
        for at in range(0, len(data), _ZSTD_PIECE):
            piece = data[at : at + _ZSTD_PIECE]
            while piece and size <= most:
                if self._stream.eof:
                    self._stream = self._next()
                out.append(self._stream.decompress(piece))
                size += len(out[-1])
                piece = self._stream.unused_data
        return b"".join(out)


def _headed(data: bytes) -> bool:
    return data[:2] == b"\x1f\x8b" or (data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0)
