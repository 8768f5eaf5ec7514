"""What travels between a hook client and the guard: THE definition.

The clients (`native/`, in C; `hook_client.py`, one file for any Python) and the server keep to it.

Question, ended by the end of the stream::

    parhelia-hook 1 PROTOCOL\\n
    PAYLOAD

PROTOCOL is one of `hook_protocols.PROTOCOLS` and PAYLOAD what the coding agent gave its hook, byte for byte; or it is
``shell`` and PAYLOAD is the working directory and the arguments of a shell that would start, a NUL behind each.

Answer, ended by the end of the stream: ``PH``, the version (1), the exit status (0 or 2), two lengths (big-endian, 32
bits), then that many bytes for stdout and for stderr. Anything else is no answer, and a client denies.

Rules kept here: what a client sends costs bounded memory however long it is: `Intake` keeps no more than MAX_KEPT bytes
(MAX_SHELL) and drops the inside of long strings (what a file is to contain) while they arrive; a text that had to be
dropped is ``null`` to whoever decides, who then misses it.
"""

from __future__ import annotations

import re
import struct
from typing import Final

VERSION: Final = 1
HEAD: Final = b"parhelia-hook %d " % VERSION
SHELL: Final = "shell"
MAX_HEAD: Final = 64
MAX_PAYLOAD: Final = 64 << 20
"""Bytes that may arrive for one question."""
MAX_KEPT: Final = 1 << 20
"""Bytes of one question that are kept."""
MAX_SHELL: Final = 2 << 20
"""The same of a shell's question: what the arguments of a program come to at most (execve(2), with an 8 MiB stack)."""
MAX_STRING: Final = 256 << 10
"""Bytes of one JSON string, as it is spelled. No argument of a program can be longer than half of it (execve(2))."""

_ANSWER = struct.Struct("!2sBBII")
_QUOTE = ord('"')
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class WireError(Exception):
    """The bytes are no question; the message says why."""


class Intake:
    """One question on its way in: fed with pieces as they arrive, then read from `protocol` and `payload`. `longest`:
    bytes of a string that is kept."""

    def __init__(self, longest: int = MAX_STRING) -> None:
        self.protocol = ""
        self._longest = longest
        self._kept = bytearray()
        self._size = 0
        self._string: int | None = None  # where the string begins that is being read
        self._dropping = False
        self._escaped = False  # the last byte was a backslash of that string

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises WireError."""
        self._size += len(piece)
        if self._size > MAX_PAYLOAD + MAX_HEAD:
            raise WireError(f"it is larger than {MAX_PAYLOAD} bytes")
        if not self.protocol:
            piece = self._read_head(piece)
        if self.protocol == SHELL:
            self._kept += piece
        elif self.protocol:
            self._shrink(piece)
        most = MAX_SHELL if self.protocol == SHELL else MAX_KEPT
        if len(self._kept) > most + (0 if self._string is None else self._longest):
            raise WireError(f"more than {most} bytes of it would have to be read")

    @property
    def empty(self) -> bool:
        """Nothing arrived: whoever connected asked nothing."""
        return self._size == 0

    @property
    def kept(self) -> int:
        """Bytes that are kept of it."""
        return len(self._kept)

    def payload(self) -> bytes:
        """What was kept, once all has arrived. Raises WireError."""
        if not self.protocol:
            raise WireError("it names no protocol of this version")
        return bytes(self._kept)

    def _read_head(self, piece: bytes) -> bytes:
        self._kept += piece
        line, end, rest = bytes(self._kept).partition(b"\n")
        if len(line) > MAX_HEAD or not (line.startswith(HEAD) or HEAD.startswith(line)):
            raise WireError("it names no protocol of this version")
        if not end:
            return b""
        self.protocol = line[len(HEAD) :].decode("ascii", "replace") or "?"
        self._kept.clear()
        return rest

    def _shrink(self, piece: bytes) -> None:
        """Keep the piece, but for the inside of strings that turn out to be long."""
        at = 0
        while at < len(piece):
            if self._string is None:
                quote = piece.find(b'"', at)
                if quote < 0:
                    self._kept += piece[at:]
                    return
                self._kept += piece[at:quote]
                self._string, self._dropping, at = len(self._kept), False, quote + 1
                self._kept.append(_QUOTE)
            at = self._in_string(piece, at)

    def _in_string(self, piece: bytes, at: int) -> int:
        """Take string from `at`; returns where it goes on."""
        start = at
        if self._escaped:  # its second byte, whatever it is
            self._escaped, at = False, at + 1
        match = _INSIDE.match(piece, at)
        at = match.end() if match else at
        ended = at < len(piece) and piece[at] == _QUOTE
        if at < len(piece):  # the quote, or a backslash at the very end
            self._escaped = not ended
            at += 1
        begins = self._string or 0
        if not self._dropping:
            self._kept += piece[start:at]
            if len(self._kept) - begins > self._longest:
                self._dropping = True
                self._kept[begins:] = b"null"
        if ended:
            self._string = None
        return at


def encode_answer(permit: bool, output: str, message: str) -> bytes:
    """The answer's bytes."""
    texts = [text.encode("utf-8", "replace") for text in (output, message)]
    return _ANSWER.pack(b"PH", VERSION, 0 if permit else 2, *map(len, texts)) + b"".join(texts)


def shell_question(payload: bytes) -> tuple[str, tuple[str, ...]]:
    """Working directory and argument list of a ``shell`` question. Raises WireError."""
    words = payload.split(b"\0")
    if len(words) < 3 or words.pop() or not words[0].startswith(b"/"):
        raise WireError("it is no directory with an argument list")
    directory, *argv = (word.decode("utf-8", "surrogateescape") for word in words)
    return directory, tuple(argv)
