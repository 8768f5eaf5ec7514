"""Taking an upload's encodings off, so that what it carries can be searched. Pure.

Rules kept here: nothing is ever executed or interpreted, only decoded; how deep is `DEPTH`, how much is `MAX_DECODED`
for each call, so that a small upload can't become a large amount of work (a compression bomb ends at the bound); bytes
that don't decode are no error, they are just not that encoding.

Sources: RFC 1950 and 1952 (zlib, gzip), RFC 4648 (base16, base64 and its URL-safe alphabet), RFC 3986 2.1
(percent-encoding), RFC 8259 section 7 (escapes in JSON strings).
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

DEPTH: Final = 3
MAX_DECODED: Final = 4 * 1024 * 1024
_SHORTEST: Final = 16  # decoded bytes: less holds no credential
_COMPRESSED: Final = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{20,}(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]+)*")
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2}){16,}")
_WHITE: Final = b" \t\r\n"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_UNICODE: Final = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
_COMPRESSED_STARTS: Final = 8


def unfolded(data: bytes, depth: int = DEPTH) -> Iterator[bytes]:
    """`data` itself and everything that is found inside when up to `depth` encodings are taken off."""
    left = [MAX_DECODED]
    yield data
    yield from _inside(data, depth, left)


def _inside(data: bytes, depth: int, left: list[int]) -> Iterator[bytes]:
    if depth <= 0:
        return
    for decoded in _decoded(data, left):
        if len(decoded) < _SHORTEST or left[0] <= 0:
            continue
        left[0] -= len(decoded)
        yield decoded
        yield from _inside(decoded, depth - 1, left)


def _decoded(data: bytes, left: list[int]) -> Iterator[bytes]:
    """One encoding less, each of the ways there are."""
    if b"%" in data and (plain := unquote_to_bytes(data)) != data:
        yield plain
    if b"\\u" in data or b"\\/" in data:
        yield _UNICODE.sub(lambda found: bytes((int(found[1], 16),)), data).replace(b"\\/", b"/")
    yield from _decompressed(data, left)
    for found in _HEX.finditer(data):
        yield binascii.unhexlify(found[0])
    for found in _BASE64.finditer(data):
        yield from _from_base64(found[0])


def _decompressed(data: bytes, left: list[int]) -> Iterator[bytes]:
    """gzip and zlib anywhere (an archive in a form)."""
    for start in islice(_COMPRESSED.finditer(data), _COMPRESSED_STARTS):
        try:
            yield zlib.decompressobj(wbits=47).decompress(data[start.start() :], max(1, left[0]))
        except zlib.error:
            continue


def _from_base64(run: bytes) -> Iterator[bytes]:
    """All four alignments: a run may begin before what is seen of it, or with characters that are not its own."""
    letters = run.translate(_URL_SAFE, _WHITE)
    for offset in range(4):
        usable = (len(letters) - offset) // 4 * 4
        if usable >= _SHORTEST:
            yield base64.b64decode(letters[offset : offset + usable])
        rest = (len(letters) - offset) % 4
        if usable >= _SHORTEST and rest > 1:  # the end of an unpadded text
            tail = letters[offset + usable - _SHORTEST : offset + usable + rest] + b"=" * (4 - rest)
            yield base64.b64decode(tail)
