"""Programs that turn text into text: what they make of a text that is known (``echo … | base64 -d | sh``).

Rules: only forms whose result is certain are folded, anything else is unknown and keeps where it came from; what is
decompressed is bounded; bytes that are no UTF-8 travel as surrogates (PEP 383). Sources: base64(1), base32(1), xxd(1),
rev(1), tr(1), tac(1), gzip(1), openssl-enc(1), sed(1).
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from agent.expressions import expression
from agent.shell.pieces import ANYTHING, Word, unknown_of

MAX_DECODED = 64 * 1024

type Content = Callable[[Word], Word | None]


def filtered(program: str, given: Sequence[Word], stdin: Word | None, content: Content) -> Word:
    """The output of `program` with the arguments `given`; unknown where it is no filter that is known here."""
    known = _FILTERS.get(program)
    if known is None:
        return ANYTHING
    options, operands = _sorted_words(given)
    takes_text = program in _TEXT_OPERANDS
    source = stdin
    if operands and not takes_text:
        source = content(operands[0]) if len(operands) == 1 else None
        if operands[0].text == "-":
            source = stdin
    if source is None:
        return ANYTHING
    if not source.known or not all(word.known for word in given):
        return unknown_of(source)
    try:
        text = known(options, [word.text for word in operands], source.text)
    except (ValueError, zlib.error, re.error):
        text = None
    return unknown_of(source) if text is None else Word(text[:MAX_DECODED], source.glob, source.made_by)


_TEXT_OPERANDS = frozenset(("tr", "sed", "openssl"))


def _sorted_words(given: Sequence[Word]) -> tuple[list[str], list[Word]]:
    options = [word.text for word in given if word.text.startswith("-") and word.text != "-"]
    return options, [word for word in given if not word.text.startswith("-") or word.text == "-"]


NUL = "\udc00"
"""Stands for a NUL byte in text that a filter made: no byte is decoded to it (PEP 383), and `UNKNOWN` is taken."""


def _bytes(text: str) -> bytes:
    return b"\0".join(part.encode("utf-8", "surrogateescape") for part in text.split(NUL))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").replace("\0", NUL)


def _decodes(options: Sequence[str]) -> bool:
    return any(re.fullmatch(r"-[a-zA-Z]*[dD][a-zA-Z]*|--d(?:e(?:c(?:o(?:de?)?)?)?)?", option) for option in options)


_PLAIN_OPTIONS = frozenset(("-d", "-D", "-i", "-di", "-id", "--ignore-garbage", "--wrap=0", "-w0"))


def _base64(options: Sequence[str], _operands: Sequence[str], text: str) -> str | None:
    if not all(option in _PLAIN_OPTIONS or option.startswith("--d") for option in options):
        return None
    if _decodes(options):
        data = re.sub(rb"[^A-Za-z0-9+/]", b"", _bytes(text))
        return _text(base64.b64decode(data + b"=" * (-len(data) % 4)))
    return base64.b64encode(_bytes(text)).decode() + "\n"


def _base32(options: Sequence[str], _operands: Sequence[str], text: str) -> str | None:
    if not _decodes(options):
        return None
    data = re.sub(rb"[^A-Z2-7]", b"", _bytes(text))
    return _text(base64.b32decode(data + b"=" * (-len(data) % 8)))


def _xxd(options: Sequence[str], _operands: Sequence[str], text: str) -> str | None:
    letters = "".join(option.lstrip("-") for option in options)
    if "r" not in letters or not set(letters) <= set("rps"):
        return None
    if "p" not in letters:
        return None
    return _text(binascii.unhexlify(re.sub(r"\s", "", text)))


def _rev(options: Sequence[str], _operands: Sequence[str], text: str) -> str | None:
    return None if options else "".join(_reversed_line(line) for line in text.splitlines(keepends=True))


def _reversed_line(line: str) -> str:
    return line[:-1][::-1] + "\n" if line.endswith("\n") else line[::-1]


def _tac(options: Sequence[str], _operands: Sequence[str], text: str) -> str | None:
    return None if options else "".join(reversed(text.splitlines(keepends=True)))


_CLASSES = {
    "[:upper:]": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "[:lower:]": "abcdefghijklmnopqrstuvwxyz",
    "[:digit:]": "0123456789",
    "[:space:]": " \t\n\v\f\r",
    "[:blank:]": " \t",
}


def _tr(options: Sequence[str], operands: Sequence[str], text: str) -> str | None:
    sets = [_tr_set(operand) for operand in operands]
    if options == ["-d"] and len(sets) == 1:
        return text.translate({ord(char): None for char in sets[0]})
    if not options and len(sets) == 2 and sets[0] and sets[1]:
        last = sets[1] + sets[1][-1] * (len(sets[0]) - len(sets[1]))
        return text.translate(dict(zip(map(ord, sets[0]), last, strict=False)))
    return None


def _tr_set(operand: str) -> str:
    for name, members in _CLASSES.items():
        operand = operand.replace(name, members)
    operand = re.sub(r"\\([0-7]{1,3})", lambda found: chr(int(found[1], 8)), operand)
    operand = re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), operand)
    if "[" in operand[:1] and ("*" in operand or "=" in operand):
        raise ValueError(operand)
    return re.sub(r"(.)-(.)", _tr_range, operand, flags=re.DOTALL)[:4096]


def _tr_range(found: re.Match[str]) -> str:
    low, high = ord(found[1]), ord(found[2])
    if high < low or high - low > 512:
        raise ValueError(found[0])
    return "".join(map(chr, range(low, high + 1)))


def _gunzip(options: Sequence[str], _operands: Sequence[str], text: str) -> str | None:
    if not set("".join(options).replace("--stdout", "").replace("--decompress", "").replace("-", "")) <= set("dcfkq"):
        return None
    data = zlib.decompressobj(wbits=47).decompress(_bytes(text), MAX_DECODED)
    return _text(data)


def _gzip(options: Sequence[str], operands: Sequence[str], text: str) -> str | None:
    return _gunzip(options, operands, text) if _decodes(options) else None


def _openssl(options: Sequence[str], operands: Sequence[str], text: str) -> str | None:
    known = {"-d", "-base64", "-a", "-A"}
    plain = list(operands) in (["enc"], ["base64"]) and set(options) <= known
    if not plain or "-d" not in options or (list(operands) == ["enc"] and not set(options) & {"-base64", "-a"}):
        return None
    return _base64(["-d"], (), text)


_SUBSTITUTION = expression(r"s([/|#,:@!%])((?:(?!\1)[^\\\[\]*.^$+?(){}|&])*)\1((?:(?!\1)[^\\&])*)\1(g?)")


def _sed(options: Sequence[str], operands: Sequence[str], text: str) -> str | None:
    """``s/text/text/`` with nothing special in it."""
    found = _SUBSTITUTION.fullmatch(operands[0]) if len(operands) == 1 and set(options) <= {"-e"} else None
    if found is None or not found[2]:
        return None
    count = -1 if found[4] else 1
    return "".join(line.replace(found[2], found[3], count) for line in text.splitlines(keepends=True))


_FILTERS: Mapping[str, Callable[[Sequence[str], Sequence[str], str], str | None]] = MappingProxyType(
    {
        "base64": _base64,
        "gbase64": _base64,
        "base32": _base32,
        "xxd": _xxd,
        "rev": _rev,
        "tac": _tac,
        "tr": _tr,
        "gunzip": _gunzip,
        "zcat": _gunzip,
        "gzip": _gzip,
        "openssl": _openssl,
        "sed": _sed,
    }
)
