"""Finding secrets in bytes: the text itself and the encodings it is likely to travel in. Pure.

Rules kept here: a secret is found in any letter case, in base64 (both alphabets, all three alignments, white space
between the characters), in hex, percent-encoded up to `MAX_PERCENT` times over, escaped as in JSON or HTML, and across
any cut of a stream into pieces; what it is searched in costs time linear in its length; what is found is named, never
quoted. Compressed or encrypted bytes hide a secret from this search, and so does half of one.

Sources: RFC 4648 (base 16, base 64 and its URL-safe alphabet), RFC 3986 section 2.1 (percent-encoding), RFC 8259
section 7 (JSON's escapes), the HTML standard's character references.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from agent.expressions import expression
from agent.values import dataclass

MIN_LENGTH: Final = 8
"""Bytes. A shorter text would be found everywhere, and is refused as a secret."""
MAX_PERCENT: Final = 3
_LEAST_PARTIAL: Final = 4
MARK: Final = b"parhelia-placeholder-"
"""What every placeholder begins with: one search for it stands for the search for each of them."""
_WHITE: Final = b" \t\r\n"
_FOLDED: Final = bytes.maketrans(b"-_", b"+/")  # both alphabets of base64 as one
_ESCAPE_BEGUN: Final = expression(rb"(?:%[0-9A-Fa-f]?|\\(?:u[0-9A-Fa-f]{0,3})?|&(?:#?[0-9A-Za-z]{0,6})?)\Z")
_NUMBERED: Final = expression(rb"\\u00([0-9A-Fa-f]{2})|&#[xX]0{0,2}([0-9A-Fa-f]{2});|&#0{0,2}([0-9]{2,3});")
_SHORT: Final = (
    *((rb"\\", b"\\"), (rb"\/", b"/"), (rb"\"", b'"'), (rb"\'", b"'")),
    *((b"&lt;", b"<"), (b"&gt;", b">"), (b"&quot;", b'"'), (b"&apos;", b"'"), (b"&amp;", b"&")),
)
_LONGEST_ESCAPE: Final = 8


class Leak(Exception):
    """A secret is where it may not be; the text is its name."""

    @property
    def name(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class _Forms:
    """What one text can look like: `plain` and `hex` in lower case, `encoded` in base64, its alphabets folded."""

    name: str
    plain: bytes
    hex: bytes
    encoded: tuple[bytes, ...]

    @staticmethod
    def of(name: str, text: bytes) -> _Forms:
        coded = dict.fromkeys(form.translate(_FOLDED) for form in _base64_forms(text))
        return _Forms(name, text.lower(), text.hex().encode(), tuple(coded))


@dataclass(frozen=True, slots=True)
class _View:
    """One reading of some bytes, as it is searched. `squeezed`: without white space, base64 folded."""

    lower: bytes
    squeezed: bytes
    squeezed_lower: bytes

    @staticmethod
    def of(data: bytes) -> _View:
        squeezed = data.translate(_FOLDED, _WHITE)
        return _View(data.lower(), squeezed, squeezed.lower())

    def holds(self, form: _Forms) -> bool:
        squeezed = self.squeezed
        return form.plain in self.lower or form.hex in self.squeezed_lower or any(x in squeezed for x in form.encoded)

    def begins(self, form: _Forms) -> int:
        """The length of the longest end that could be the beginning of the text."""
        found = [_begins(self.lower, form.plain), _begins(self.squeezed_lower, form.hex)]
        return max(found + [_begins(self.squeezed, text) for text in form.encoded])


class Needles:
    """A set of named texts to be found. Texts shorter than `MIN_LENGTH` raise ValueError."""

    def __init__(self, texts: Iterable[tuple[str, str]] = ()) -> None:
        given = [(name, text.encode()) for name, text in texts]
        if any(len(text) < MIN_LENGTH for _, text in given):
            raise ValueError(f"a secret of fewer than {MIN_LENGTH} bytes cannot be searched for")
        self._forms = tuple(_Forms.of(name, text) for name, text in given)
        marked = any(text.startswith(MARK) for _, text in given)
        alone = [(name, text) for name, text in given if not text.startswith(MARK)]
        self._quick = tuple(_Forms.of(name, text) for name, text in (*alone, *([("", MARK)] if marked else [])))
        self._masks = tuple((name, re.compile(_pattern(text))) for name, text in given)
        self.reach = 6 * max((len(text) for _, text in given), default=0) + 64
        """Bytes over which one occurrence can stretch (percent-encoded hex), with some white space."""

    def __bool__(self) -> bool:
        return bool(self._forms)

    def find(self, data: bytes) -> str | None:
        """The name of a text that is in `data`, None where none is."""
        return next((name for _, view in _views(data) if (name := self._find(view)) is not None), None)

    def partial(self, data: bytes) -> int:
        """How many bytes at the end of `data` could be the beginning of a text, to be held back; 0 for none.

        Beginnings shorter than `_LEAST_PARTIAL` are not held: a peer may wait for those very bytes.
        """
        tail = data[-self.reach :]
        begun = _ESCAPE_BEGUN.search(tail)
        whole = tail if begun is None else tail[: begun.start()]
        longest = self._begun(tail)
        if whole is not tail:
            unfinished = self._begun(whole)
            longest = max(longest, unfinished + len(tail) - len(whole) if unfinished else 0)
        return min(longest, len(tail))

    def _begun(self, tail: bytes) -> int:
        longest = 0
        for factor, view in _views(tail):
            seen = _View.of(view)
            spread = factor * (1 if len(seen.squeezed) == len(view) else 2)
            longest = max(longest, spread * max(map(seen.begins, self._forms), default=0))
        return longest

    def mask(self, data: bytes) -> bytes:
        """`data` with every occurrence overwritten in its own length. Raises Leak where one is found and can't be."""
        for name, pattern in self._masks:
            data = pattern.sub(lambda match, name=name: _cover(name, len(match[0])), data)  # type: ignore[misc]
        left = self.find(data)
        if left is not None:
            raise Leak(left)
        return data

    def redact(self, text: str) -> str:
        """`text` for a log: every occurrence as ``[secret NAME]``; nothing else of it where that does not do."""
        data = text.encode("utf-8", "surrogateescape")
        found = self.find(data)
        if found is None:
            return text
        for name, pattern in self._masks:
            data = pattern.sub(_label(name).replace(b"\\", rb"\\"), data)
        left = self.find(data)
        return _label(found).decode() if left is not None else data.decode("utf-8", "backslashreplace")

    def _find(self, view: bytes) -> str | None:
        seen = _View.of(view)
        if not any(map(seen.holds, self._quick)):
            return None
        return next((form.name for form in self._forms if seen.holds(form)), None)


class Watch:
    """One stream that must not carry any of the texts."""

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._tail = b""
        self._held = 0

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may go on: all but what could be the beginning of a text. `last`: nothing follows. Raises Leak."""
        window = self._tail + data
        found = self._needles.find(window)
        if found is not None:
            raise Leak(found)
        return self._pass_on(window, self._held + len(data), last=last)

    def _pass_on(self, window: bytes, unsent: int, *, last: bool) -> bytes:
        self._held = 0 if last else min(self._needles.partial(window), unsent)
        self._tail = window[-self._needles.reach :]
        return window[len(window) - unsent : len(window) - self._held]


class Mask(Watch):
    """One stream whose occurrences are overwritten, each in its own length: framing and offsets stay what they are."""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What may go on. Raises Leak where an occurrence can't be overwritten."""
        window = self._tail + data
        if self._needles.find(window) is not None:
            window = self._needles.mask(window)
        return self._pass_on(window, self._held + len(data), last=last)


def _views(data: bytes) -> list[tuple[int, bytes]]:
    """`data`; what it says once its percent-encoding is taken off, again and again; and once its escapes are. With how
    many bytes of it one of the view's can be at most."""
    views = [(1, data)]
    while b"%" in views[-1][1] and len(views) <= MAX_PERCENT:
        factor, view = views[-1]
        decoded = unquote_to_bytes(view)
        if decoded == view:
            break
        views.append((3 * factor, decoded))
    if b"\\" in data or b"&" in data:
        views.append((_LONGEST_ESCAPE, _unescaped(data)))
    return views


def _unescaped(data: bytes) -> bytes:
    """`data` without escapes of JSON and HTML, read loosely: it is searched, and serves nothing else."""
    if b"\\u00" in data or b"&#" in data:
        data = _NUMBERED.sub(_numbered, data)
    for written, meant in _SHORT:
        data = data.replace(written, meant)
    return data


def _numbered(match: re.Match[bytes]) -> bytes:
    unicode, hexadecimal, decimal = match.groups()
    code = int(decimal) if decimal is not None else int(unicode or hexadecimal, 16)
    return bytes((code,)) if code < 0x80 else match[0]


def _base64_forms(text: bytes) -> tuple[bytes, ...]:
    """What `text` looks like inside base64 wherever it begins: the characters that it alone decides."""
    forms = []
    for before in range(3):
        coded = base64.b64encode(bytes(before) + text)
        first = -(-before * 8 // 6)
        standard = coded[first : (before + len(text)) * 8 // 6]
        forms += [standard, standard.translate(bytes.maketrans(b"+/", b"-_"))]
    return tuple(dict.fromkeys(forms))


def _begins(view: bytes, text: bytes) -> int:
    """The length of the longest end of `view` that begins `text` and is not all of it."""
    start = text[:_LEAST_PARTIAL]
    at = view.find(start, max(0, len(view) - len(text) + 1))
    while at >= 0:
        if text.startswith(view[at:]):
            return len(view) - at
        at = view.find(start, at + 1)
    return 0


def _pattern(text: bytes) -> bytes:
    plain = b"".join(_character(bytes((byte,)), any_case=True) for byte in text)
    coded = [_spaced(text.hex().encode(), any_case=True)]
    coded += [_spaced(form) for form in _base64_forms(text)]
    return b"|".join((plain, *coded))


def _spaced(text: bytes, *, any_case: bool = False) -> bytes:
    return rb"[ \t\r\n]*".join(_character(bytes((byte,)), any_case=any_case) for byte in text)


def _character(character: bytes, *, any_case: bool = False) -> bytes:
    """`character` as it is or percent-encoded, once or twice over."""
    cases = {character.lower(), character.upper()} if any_case else {character}
    coded = b"|".join(b"%%(?:25)*%b" % _any_case(case.hex().encode()) for case in sorted(cases))
    return b"(?:%b|%b)" % (b"|".join(re.escape(case) for case in sorted(cases)), coded)


def _any_case(digits: bytes) -> bytes:
    return b"".join(b"[%b%b]" % (digit.lower(), digit.upper()) for digit in (digits[:1], digits[1:]))


def _label(name: str) -> bytes:
    return b"[secret %b]" % name.encode()


def _cover(name: str, length: int) -> bytes:
    label = _label(name)
    return label.ljust(length, b"*") if len(label) <= length else b"*" * length
